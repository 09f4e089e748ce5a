"""Files with credentials, as real projects have them, are refused.

Templates, placeholders and code are included.
"""

from __future__ import annotations

import base64
import json
import string
from pathlib import Path

import pytest

from flyte_build.bundler.scan import Scanner, ScanOptions
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.errors import SecretRefused
from tests.support.command import Shell
from tests.support.files import write_files

pytestmark = pytest.mark.quick

NAME = "a file with this name contains credentials"
KEY, WORD, INDEX, URL = (
    "a private key",
    "a password or a token",
    "a package index's credentials",
    "a URL with a password",
)


def mixed(length: int, letters: str = string.ascii_letters + string.digits) -> str:
    """Return characters that look random, and are always the same."""
    return "".join(letters[(at * at * 7 + at * 31 + 5) % len(letters)] for at in range(length))


HEX, UPPER = mixed(40, "0123456789abcdef"), mixed(16, "QWERTZUPASDFGHJKYXCVBNM234567")
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{mixed(64)}\n{mixed(64)}\n-----END RSA PRIVATE KEY-----\n"
PEM64 = base64.b64encode(PEM.encode()).decode()
GITHUB, GITLAB, HUGGING, NPM = (
    "ghp_" + mixed(36),
    "glpat-" + mixed(20),
    "hf_" + mixed(34),
    "npm_" + mixed(36),
)
AWS = f"aws_access_key_id = AKIA{UPPER}\naws_secret_access_key = {mixed(40)}\n"


def cell(line: str) -> str:
    """Return a notebook with a line of code."""
    return json.dumps(
        {"cells": [{"cell_type": "code", "source": ["import os\n", line]}], "nbformat": 4}, indent=1
    )


def kubeconfig(user: str) -> str:
    """Return a kubeconfig with a user who logs in so."""
    return (
        "apiVersion: v1\nkind: Config\nclusters:\n- name: prod\nusers:\n- name: me\n  user:\n   "
        f" {user}\n"
    )


SECRETS: dict[str, tuple[str, str]] = {
    # By name alone.
    ".env": ("DEBUG=1\n", NAME),
    "service/.env.production": ("DEBUG=1\n", NAME),
    ".env.local": ("", NAME),
    ".envrc": ("export A=1\n", NAME),
    ".netrc": ("machine h login u password p\n", NAME),
    ".pypirc": ("[pypi]\nusername = __token__\n", NAME),
    ".git-credentials": ("https://u:p@github.com\n", NAME),
    ".pgpass": ("db:5432:*:u:p\n", NAME),
    ".my.cnf": ("[client]\npassword=p\n", NAME),
    ".htpasswd": ("u:$apr1$x\n", NAME),
    ".vault-token": ("s.abc\n", NAME),
    ".vault_pass": ("p\n", NAME),
    "ansible/vault_password.txt": ("p\n", NAME),
    ".dockercfg": ('{"https://index.docker.io/v1/": {"auth": "dTpw"}}', NAME),
    ".s3cfg": ("[default]\nsecret_key = x\n", NAME),
    ".boto": ("[Credentials]\n", NAME),
    ".databrickscfg": ("[DEFAULT]\nhost = h\n", NAME),
    ".modal.toml": ("[me]\n", NAME),
    ".terraformrc": ("credentials {}\n", NAME),
    ".cdsapirc": ("key: 1:2\n", NAME),
    ".bash_history": ("mysql -psecret\n", NAME),
    ".psql_history": ("", NAME),
    "adc.json": ("{}", NAME),
    "keys/application_default_credentials.json": ("{}", NAME),
    "credentials.json": ("{}", NAME),
    "kaggle.json": ('{"username": "u", "key": "k"}', NAME),
    "rootkey.csv": ("AWSAccessKeyId=\n", NAME),
    "me_accessKeys.csv": ("Access key ID,Secret access key\n", NAME),
    "infra/terraform.tfstate": ('{"version": 4}', NAME),
    "infra/terraform.tfstate.backup": ('{"version": 4}', NAME),
    ".terraform.d/credentials.tfrc.json": ("{}", NAME),
    ".aws/credentials": ("[default]\n", NAME),
    ".aws/config": ("[default]\n", NAME),
    ".azure/accessTokens.json": ("[]", NAME),
    ".kube/config": ("", NAME),
    ".ssh/id_ed25519": ("", NAME),
    ".gnupg/secring.gpg": ("", NAME),
    ".docker/config.json": ("{}", NAME),
    ".cargo/credentials": ("", NAME),
    ".cargo/credentials.toml": ("[registry]\n", NAME),
    ".gem/credentials": ("", NAME),
    ".config/gcloud/credentials.db": ("", NAME),
    ".config/gh/hosts.yml": ("github.com:\n", NAME),
    ".config/rclone/rclone.conf": ("", NAME),
    ".huggingface/token": ("", NAME),
    ".streamlit/secrets.toml": ("", NAME),
    ".snowflake/connections.toml": ("", NAME),
    "store.p12": ("", NAME),
    "store.JKS": ("", NAME),
    "robot.keytab": ("", NAME),
    "vault.kdbx": ("", NAME),
    "putty.ppk": ("", NAME),
    # Private keys, however they are written.
    "id_rsa": (PEM, KEY),
    "tls/server.pem": (PEM.replace("RSA ", "EC "), KEY),
    "client.ovpn": (f"client\n<key>\n{PEM}</key>\n", KEY),
    "signing.asc": ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n" + mixed(64) + "\n", KEY),
    "jwk.json": (json.dumps({"kty": "EC", "crv": "P-256", "d": mixed(43)}), KEY),
    "wg0.conf": (f"[Interface]\nPrivateKey = {mixed(43)}=\n", KEY),
    "tls-secret.yaml": (f"apiVersion: v1\ndata:\n  tls.key: {PEM64}\n", KEY),
    "age/keys.txt": (
        "# created: 2026\nAGE-SECRET-KEY-1" + mixed(58, string.ascii_uppercase + "234567") + "\n",
        "a token of age",
    ),
    # Clusters and clouds.
    "kubeconfig": (kubeconfig(f"token: {mixed(40)}"), "a kubeconfig"),
    "deploy/cluster.yaml": (kubeconfig(f"token: {mixed(40)}"), "a kubeconfig"),
    "admin.conf": (kubeconfig(f"client-key-data: {mixed(60)}"), "a kubeconfig"),
    "prod.kubeconfig": (kubeconfig("password: correct-horse"), "a kubeconfig"),
    "kube.json": (
        json.dumps({"kind": "Config", "users": [{"name": "u", "user": {"token": mixed(30)}}]}),
        "a kubeconfig",
    ),
    "k8s/db.yaml": (
        (
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\nstringData:\n  password:"
            " tr0ub4dor&3\n"
        ),
        "a Kubernetes secret",
    ),
    "k8s/pull.yml": (
        f"kind: Secret\ndata:\n  .dockerconfigjson: {mixed(60)}\n",
        "a Kubernetes secret",
    ),
    "docker/config.json": (
        '{"auths": {"r.example.com": {"auth": "bWU6c2VjcmV0"}}}',
        "a registry's credentials",
    ),
    "containers/auth.json": (
        '{"auths": {"quay.io": {"auth": "bWU6c2VjcmV0"}}}',
        "a registry's credentials",
    ),
    "robot.json": (
        json.dumps({"type": "service_account", "private_key": "x"}),
        "a service account's key",
    ),
    "user.json": (
        json.dumps({"type": "authorized_user", "refresh_token": "1//" + mixed(40)}),
        WORD,
    ),
    "client_secret.json": (
        json.dumps({"installed": {"client_id": "x", "client_secret": "GOCSPX-" + mixed(28)}}),
        "a token of Google",
    ),
    "azureauth.json": (json.dumps({"clientId": "x", "clientSecret": mixed(34)}), WORD),
    "sts.json": (json.dumps({"Credentials": {"SecretAccessKey": mixed(40)}}), WORD),
    "credentials": (AWS, "a token of AWS"),
    "config.ini": (AWS, "a token of AWS"),
    "storage.cfg": (
        f"conn = DefaultEndpointsProtocol=https;AccountKey={mixed(86)}==\n",
        "a token of Azure",
    ),
    "vars/prod.tfvars": ('db_password = "hunter2-prod"\n', WORD),
    "rclone.conf": (f"[s3]\ntype = sftp\npass = {mixed(30)}\n", WORD),
    # Variables.
    "prod.env": ("DEBUG=0\nDB_PASSWORD=tr0ub4dor\n", WORD),
    "deploy/api.env": (f'export API_KEY="{mixed(24)}"\n', WORD),
    "url.env": ("DATABASE_URL=postgres://app:tr0ub4dor@db.internal.corp:5432/app\n", URL),
    ".envs/.production/.postgres": ("POSTGRES_PASSWORD=tr0ub4dor\n", WORD),
    "Dockerfile": (f"FROM x\nENV NPM_TOKEN={mixed(30)}\n", WORD),
    "Dockerfile.prod": (
        (
            "FROM x\nRUN pip install --extra-index-url"
            f" https://ci:{mixed(12)}@pypi.corp.net/simple y\n"
        ),
        URL,
    ),
    "docker-compose.yml": (
        f"services:\n  a:\n    environment:\n      GITHUB_TOKEN: {GITHUB}\n",
        "a token of GitHub",
    ),
    ".gitlab-ci.yml": (f"variables:\n  TOKEN: {GITLAB}\n", "a token of GitLab"),
    "gradle.properties": ("mavenPassword=tr0ub4dor\n", WORD),
    "settings.xml": (
        "<server><username>u</username><password>tr0ub4dor</password></server>\n",
        WORD,
    ),
    "secrets.toml": ('[db]\npassword = "tr0ub4dor"\n', WORD),
    "config/.secrets.toml": (f'[production]\napi_key = "{mixed(20)}"\n', WORD),
    "secrets.yaml": ("db:\n  password: tr0ub4dor\n", WORD),
    "secrets.json": ('{"token": "' + mixed(24) + '"}', WORD),
    "profiles.yml": ("dbt:\n  outputs:\n    prod:\n      password: tr0ub4dor\n", WORD),
    ".dvc/config.local": (
        "['remote \"s3\"']\n    secret_access_key = " + mixed(40) + "\n",
        "a token of AWS",
    ),
    "local_settings.py": ('SECRET_KEY = "' + mixed(50) + '"\n', WORD),
    "settings.py": (f'HF_TOKEN = "{HUGGING}"\n', "a token of Hugging Face"),
    "alembic.ini": ("sqlalchemy.url = postgresql://app:tr0ub4dor@pg.prod.corp/app\n", URL),
    "token.txt": (mixed(32) + "\n", WORD),
    "notes.txt": (f"slack: xoxb-{mixed(40, string.digits)}\n", "a token of Slack"),
    # Notebooks.
    "a.ipynb": (cell(f'os.environ["OPENAI_API_KEY"] = "sk-proj-{mixed(48)}"'), "a token of OpenAI"),
    "b.ipynb": (cell(f'api_key = "{mixed(24)}1"'), WORD),
    "c.ipynb": (
        cell(f"s3 = boto3.client('s3', aws_secret_access_key='{mixed(40)}')"),
        "a token of AWS",
    ),
    "d.ipynb": (cell(f'login(token="{HUGGING}")'), "a token of Hugging Face"),
    "e.ipynb": (cell('e = create_engine("postgresql://app:tr0ub4dor@pg.prod.corp/app")'), URL),
    # Package indexes.
    "pip.conf": ("[global]\nindex-url = https://me:secret@pypi.corp.net/simple\n", INDEX),
    ".pip/pip.conf": (
        "[global]\nextra-index-url =\n    https://me:secret@pypi.corp.net/simple\n",
        INDEX,
    ),
    "requirements.txt": ("--index-url https://me:secret@pypi.corp.net/simple\nnumpy\n", INDEX),
    "requirements/prod.in": (f"x @ git+https://{mixed(30)}@git.corp.net/x.git\n", INDEX),
    "constraints.txt": ("--extra-index-url=https://me:secret@pypi.corp.net/simple\n", INDEX),
    "requirements-dev.txt": (f"git+https://{GITHUB}@github.com/corp/x.git\n", "a token of GitHub"),
    "uv.toml": ('[[index]]\nurl = "https://me:secret@pypi.corp.net/simple"\n', INDEX),
    "pyproject.toml": (
        '[[tool.uv.index]]\nurl = "https://me:secret@pypi.corp.net/simple"\n',
        INDEX,
    ),
    "pypoetry/auth.toml": ('[http-basic.corp]\nusername = "me"\npassword = "tr0ub4dor"\n', INDEX),
    "uv.lock": ('source = { registry = "https://me:tr0ub4dor@pypi.corp.net/simple" }\n', URL),
    "Pipfile": ('[[source]]\nurl = "https://me:secret@pypi.corp.net/simple"\n', INDEX),
    ".condarc": (
        "channels:\n  - https://conda.corp.net/t/ab-7f3c91d2-58be-4a60-9c27-e14d0b86f35a/main\n",
        INDEX,
    ),
    "environment.yml": (
        "dependencies:\n- pip:\n  - --index-url https://me:secret@pypi.corp.net/simple\n",
        INDEX,
    ),
    ".npmrc": (f"//registry.npmjs.org/:_authToken={mixed(30)}\n", INDEX),
    ".yarnrc.yml": (f'npmAuthToken: "{mixed(30)}"\n', INDEX),
    "npm.sh": (f"echo {NPM}\n", "a token of npm"),
    ".cargo/config.toml": (f'[registry]\ntoken = "{mixed(30)}"\n', INDEX),
    ".gitmodules": ("[submodule]\n\turl = https://oauth2:tr0ub4dor@git.corp.net/x.git\n", URL),
}
HARMLESS: dict[str, str] = {
    ".env.example": "API_KEY=changeme\nDB_PASSWORD=\n",
    "d/.env.sample": "TOKEN=<token>\n",
    ".env.template": "TOKEN=${TOKEN}\n",
    ".env.local.example": "DB_PASSWORD=anything-at-all-1\n",
    "example.env": "DB_PASSWORD=anything-at-all-1\n",
    "dev.env": (
        "DB_PASSWORD=postgres\nTOKEN=xxxxxxxx\nMAX_TOKENS=40960000\nTOKEN_URL=https://a.corp.net/token\nPASSWORD_MIN=12\n"
    ),
    "ci.env": (
        "API_KEY=${API_KEY}\nSECRET={{ secret }}\nTOKEN=$(cat"
        " /run/token)\nKEY_PASSWORD=<password>\n"
    ),
    "settings.env": (
        "SECRET_FILE=/run/secrets/x\nPASSWORD_FILE=/run/secrets/y\nDB_SECRET=/run/secrets/z\n"
    ),
    "environment": "PATH=/usr/bin\n",
    "env.py": "API_KEY = os.environ['API_KEY']\n",
    "kubeconfig.yaml": kubeconfig("exec:\n      command: aws"),
    "kubeconfig": kubeconfig("token: ${KUBE_TOKEN}"),
    "k8s/secret.yaml": (
        'kind: Secret\nstringData:\n  password: "{{ .Values.password }}"\n  token: changeme\n'
    ),
    "k8s/external.yaml": (
        "kind: ExternalSecret\nspec:\n  secretStoreRef:\n    name: some-vault-store\n"
    ),
    "k8s/pod.yaml": (
        "kind: Pod\nspec:\n  secretKeyRef:\n    name: database-password\n    key: password-of-db\n"
    ),
    "sops/secrets.yaml": "password: ENC[AES256_GCM,data:abcdefgh1234,iv:x]\nsops: {}\n",
    "vars/vault.yml": "$ANSIBLE_VAULT;1.1;AES256\n6162636465666768\n",
    "secrets.py": "import secrets\ntoken = secrets.token_hex(16)\npassword: str = ''\n",
    "docker/config.json": '{"auths": {}, "credsStore": "desktop"}',
    "client.json": '{"type": "web", "client_secret": "YOUR_CLIENT_SECRET"}',
    "schema.json": (
        '{"properties": {"password": {"type": "string"}, "refresh_token": {"type": "string"}}}'
    ),
    "public.jwk.json": '{"kty": "EC", "x": "' + mixed(43) + '"}',
    "a.ipynb": cell('api_key = os.environ["OPENAI_API_KEY"]'),
    "b.ipynb": cell('api_key = "YOUR_API_KEY_1234"'),
    "c.ipynb": cell('token = tokenizer("some text 123", return_tensors="pt")'),
    "requirements.txt": (
        "numpy==2.3.1 --hash=sha256:" + HEX + "\nx @ git+ssh://git@github.com/corp/x.git\n"
    ),
    "requirements-dev.txt": "--extra-index-url https://${USER}:${TOKEN}@pypi.corp.net/simple\n",
    "pip.conf": "[global]\nindex-url = https://pypi.corp.net/simple\n",
    "pyproject.toml": '[tool.ruff]\nselect = ["S105"]\n[tool.x]\ntoken = "${TOKEN}"\n',
    ".npmrc": "registry=https://registry.npmjs.org\n//r/:_authToken=${NPM_TOKEN}\n",
    ".condarc": "channels:\n  - conda-forge\n",
    "setup.cfg": "[db]\npostgresql = postgresql://scott:tiger@127.0.0.1:5432/test\n",
    "alembic.ini": "sqlalchemy.url = driver://user:pass@localhost/dbname\n",
    "docker-compose.yml": (
        "services:\n  a:\n    environment:\n      URL: postgres://app:app-secret@db:5432/app\n"
    ),
    "Dockerfile": "FROM x\nARG TOKEN\nENV PYTHONHASHSEED=0 TOKEN_FILE=/run/token\n",
    "aws.cfg": (
        "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key ="
        " wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n"
    ),
    "app.json": (
        '{"task-sk-name": "disk-usage-of-the-whole-long-named-machine-and-more", "sha": "'
        + HEX
        + '"}'
    ),
    "prod.tfvars": 'region = "eu-west-1"\nkey_name = "deployer"\n',
    "settings.xml": "<password>${env.PASSWORD}</password>\n",
    "token.txt": "a list of words, not a token\n",
    "secrets/README.md": "Put your API_KEY=abcdefgh1234 here.\n",
    "ca.pem": "-----BEGIN CERTIFICATE-----\n" + mixed(64) + "\n-----END CERTIFICATE-----\n",
    "credentials.py": "ACCESS_KEY = 'AWSAccessKeyId'\n",
}


def scan_all(cache: Cache, project: Path, allowed: frozenset[str] = frozenset()) -> set[str]:
    """Return the paths that a scan includes."""
    return {
        entry.name
        for entry in (
            Scanner(str(project), cache.index, Counters(), ScanOptions(allowed=allowed))
            .scan_all()
            .entries()
        )
    }


@pytest.mark.parametrize("path", SECRETS)
def test_a_file_with_credentials_is_refused(cache: Cache, project: Path, path: str) -> None:
    """A file with credentials is refused at any depth, unless its path is allowed.

    The error gives the reason.
    """
    content, why = SECRETS[path]
    write_files(
        project, {path: content.encode(), f"deep/er/{path}": content.encode(), "main.py": b""}
    )
    with pytest.raises(SecretRefused) as raised:
        scan_all(cache, project)
    lines = raised.value.what.splitlines()[1:]
    assert [line.strip().partition(": ")[0] for line in lines] == sorted(
        [path, f"deep/er/{path}"]
    ) and all(why in line for line in lines)
    assert scan_all(cache, project, frozenset({path, f"deep/er/{path}"})) == {
        path,
        f"deep/er/{path}",
        "main.py",
    }


@pytest.mark.parametrize("path", HARMLESS)
def test_templates_placeholders_and_code_are_taken(cache: Cache, project: Path, path: str) -> None:
    """Templates, placeholders and code that only look like secrets are included."""
    write_files(project, {path: HARMLESS[path].encode()})
    assert scan_all(cache, project) == {path}


@pytest.mark.parametrize("at", (0, (1 << 20) - 20, 3 << 20))
def test_a_token_is_found_anywhere_in_a_large_notebook(
    cache: Cache, project: Path, at: int
) -> None:
    """A token is found anywhere in a large notebook, even across two blocks."""
    write_files(
        project, {"a.ipynb": b" " * at + f'"x = \\"{GITHUB}\\""'.encode() + b" " * (1 << 20)}
    )
    with pytest.raises(SecretRefused, match="a token of GitHub"):
        scan_all(cache, project)


@pytest.mark.parametrize(
    "unit",
    [
        b" ",
        b"\n",
        b"{",
        b"a",
        b"token",
        b"password= \n",
        b"\n  key",
        b"://a:",
        b'"d":',
        b"-----BEGIN PRIVATE KEY-----\n",
        b"-e ",
    ],
)
@pytest.mark.parametrize(
    "name", ["a.env", "a.yaml", "a.json", "a.ipynb", "pip.conf", "secrets.py", "settings.xml"]
)
def test_no_content_takes_for_ever(cache: Cache, project: Path, name: str, unit: bytes) -> None:
    """Patterns take time in proportion to the content.

    Other ones would not finish within any useful time.
    """
    write_files(project, {name: (unit * (1 << 18))[: 1 << 18] + b"\ntoken" + b" " * (1 << 18)})
    assert scan_all(cache, project) == {name}


def test_the_command_names_all_of_them(flyte: Shell) -> None:
    """`flyte run` refuses a project with secrets, and names all of them."""
    write_files(
        flyte.project,
        {
            "prod.env": b"TOKEN=tr0ub4dor\n",
            "requirements.txt": SECRETS["requirements.txt"][0].encode(),
        },
    )
    refused = flyte("run", "--copy-style", "all", "tasks.py", "hello", exit_code=3)
    assert (
        "prod.env: it contains a password" in refused.stderr
        and "requirements.txt: it contains a package index's" in refused.stderr
    )
