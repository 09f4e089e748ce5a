"""Rules for files with credentials: names, directories, and patterns of content by kind of file.

The forms of tokens are those that their services document (GitHub, "About authentication"; AWS IAM,
"Identifiers"; PyPI, "Tokens"). Patterns are compiled when a file first needs them: most projects
need few.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NAMES = frozenset(
    (
        *(
            ".bash_history",
            ".boto",
            ".cdsapirc",
            ".credentials",
            ".databrickscfg",
            ".dbshell",
            ".dockercfg",
            ".dockerconfigjson",
        ),
        *(
            ".ecmwfapirc",
            ".erlang.cookie",
            ".fetchmailrc",
            ".git-credentials",
            ".htpasswd",
            ".modal.toml",
            ".msmtprc",
            ".my.cnf",
        ),
        *(
            ".mylogin.cnf",
            ".mysql_history",
            ".netrc",
            ".node_repl_history",
            ".passwd-s3fs",
            ".pgpass",
            ".psql_history",
            ".pypirc",
        ),
        *(
            ".python_history",
            ".s3cfg",
            ".smbcredentials",
            ".terraformrc",
            ".vault-token",
            ".vault_pass",
            ".vault_password",
        ),
        *(
            ".zsh_history",
            "_netrc",
            "access_tokens.db",
            "adc.json",
            "application_default_credentials.json",
            "credentials.csv",
        ),
        *(
            "credentials.db",
            "credentials.json",
            "credentials.tfrc.json",
            "kaggle.json",
            "netrc",
            "pgpass.conf",
            "rootkey.csv",
        ),
        *("terraform.rc", "vault_pass.txt", "vault_password.txt"),
    )
)
ENDINGS = (
    *(
        ".agekey",
        ".bks",
        ".jceks",
        ".jks",
        ".kdb",
        ".kdbx",
        ".keystore",
        ".keytab",
        ".p12",
        ".pfx",
        ".ppk",
    ),
    *(".tfstate", ".tfstate.backup", "_accesskeys.csv"),
)
FOLDERS = (
    r"(^|/)\.(aws/|azure/|kube/|ssh/|gnupg/|password-store/|kaggle/|snowflake/|snowsql/"
    r"|terraform\.d/|docker/config\.json$|mc/config\.json$"
    r"|(cargo|gem)/credentials|huggingface/token$|cache/huggingface/(token|stored_tokens)$"
    r"|streamlit/secrets\.toml$"
    r"|config/(doctl|gcloud|gh|glab-cli|hub|op|rclone|sops)/)"
)
TEMPLATE = (
    r"[._-](example|sample|template|tmpl|tpl|dist|defaults?|schema|j2)(?=[._-]|$)"
    r"|^(example|sample|template)[._-]"
)
"""Pattern for the names (lower case) of templates, which show the form of another file."""
REQUIREMENTS = r"(^|[/._-])(requirements?|reqs?|constraints?|dependencies)([/._-]|$)"
"""Pattern for the paths of requirements files, which pip reads."""
# A key, not the mere words: they are followed by a line break, which may be an escape, optional
# RFC 1421 headers, and base64.
PRIVATE_KEY = (
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|\s)+"
    rb"(?:[A-Za-z-]+: [^\n]{0,200}(?:\\[rn]|\s)+)*[A-Za-z0-9+/=]{40}"
)


class Rule(NamedTuple):
    """A kind of secret: `pattern` is tried if one of `needles` is found; its group is the secret.

    Rules that `guess` go by the name of a variable: templates, and values that are common words, do
    not count.
    """

    why: str
    needles: tuple[bytes, ...]
    pattern: bytes
    guess: bool = False


_PASSWORD, _ADDRESS = "it contains a password or a token", "it contains a URL with a password"
_INDEX_WHY, _KEY_WHY = "it contains a package index's credentials", "it contains a private key"
_WORDS = (
    b"pass",
    b"Pass",
    b"PASS",
    b"pwd",
    b"PWD",
    b"Pwd",
    b"ecret",
    b"SECRET",
    b"oken",
    b"TOKEN",
    b"key",
    b"Key",
    b"KEY",
)
_NAME = (
    rb"[\w.-]{0,80}?(?i:password|passwd|passphrase|pwd|secret|token"
    rb"|(?:api|access|account|secret|private|auth|encryption|fernet)_?key)"
)
_START = rb"(?m)^[ \t]*+(?:\{[ \t]*+)?(?:(?:export|set|ENV|ARG|-|-e)[ \t]++)?[\"']?"

_TOKENS = (  # The service, the prefix of its tokens, and a pattern for the rest.
    ("AWS", b"AKIA", rb"[A-Z2-7]{16}(?![A-Za-z0-9])"),
    ("Anthropic", b"sk-ant-", rb"[\w-]{40}"),
    ("Azure", b"AccountKey=", rb"[A-Za-z0-9+/]{86}"),
    ("Databricks", b"dapi", rb"[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("DigitalOcean", b"dop_v1_", rb"[0-9a-f]{64}"),
    ("GitHub", b"ghp_", rb"[A-Za-z0-9]{36}"),
    ("GitHub", b"gho_", rb"[A-Za-z0-9]{36}"),
    ("GitHub", b"ghs_", rb"[A-Za-z0-9]{36}"),
    ("GitHub", b"github_pat_", rb"\w{60}"),
    ("GitLab", b"glpat-", rb"[\w-]{20}"),
    ("Google", b"AIza", rb"[\w-]{35}(?![\w-])"),
    ("Google", b"GOCSPX-", rb"[\w-]{28}"),
    ("Hugging Face", b"hf_", rb"[A-Za-z0-9]{34}(?![A-Za-z0-9])"),
    ("OpenAI", b"sk-", rb"(?:(?:proj|svcacct|admin)-[\w-]{40}|[A-Za-z0-9]{40})"),
    ("PyPI", b"pypi-AgEIcHlwaS5vcmc", rb"[\w-]{40}"),
    ("SendGrid", b"SG.", rb"[\w-]{22}\.[\w-]{43}"),
    ("Slack", b"xox", rb"[abeprs]-[0-9A-Za-z-]{24}"),
    ("Slack", b"hooks.slack.com/services/T", rb"\w{7,20}/B\w{7,20}/\w{20}"),
    ("Stripe", b"k_live_", rb"[0-9A-Za-z]{24}"),
    ("Vault", b"hvs.", rb"[\w-]{24}"),
    ("age", b"AGE-SECRET-KEY-1", rb"[0-9A-Z]{58}"),
    ("npm", b"npm_", rb"[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
)
TOKENS = (
    *(
        Rule(
            f"it contains a token of {service}",
            (start,),
            rb"%b(?<![A-Za-z0-9+]%b)(%b)" % (re.escape(start), re.escape(start), rest),
        )
        for service, start, rest in _TOKENS
    ),
    Rule(
        "it contains a token of AWS",
        (b"secret_access_key", b"SECRET_ACCESS_KEY"),
        rb"(?:secret_access_key|SECRET_ACCESS_KEY)[\\\"'\])]{0,4}\s{0,9}[:=,]\s{0,9}[\\\"']{0,2}"
        rb"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
    ),
)
_ENCODED_KEY = Rule(
    _KEY_WHY,
    # Base64 of "-----BEGIN "; the kind of key and "PRIVATE KEY" follow.
    (b"LS0tLS1CRUdJTi",),
    rb"(LS0tLS1CRUdJTi(?:BQUklWQVRFIEtFW|BSU0EgUFJJVkFURSBLRV|BFQyBQUklWQVRFIEtFW"
    rb"|BPUEVOU1NIIFBSSVZBVEUgS0VZ)[A-Za-z0-9+/=]{40})",
)
_URL = Rule(  # To a host with a domain: those in examples, and nearby containers, have none.
    _ADDRESS,
    (b"://",),
    rb"://[^\s/:@\"'<>{}$%]{0,80}:([^\s/@\"'<>{}]{3,200})@(?!127\.|0\.0\.|[\w.-]*example\b"
    rb"|[\w.-]*\.(?:test|invalid|local)\b)[\w-]{1,80}\.[\w-]",
    guess=True,
)
_INDEX_URL = Rule(
    _INDEX_WHY,
    (b"://",),
    rb"://(?:[^\s/:@\"'<>{}$%]{0,80}:([^\s/@\"'<>{}]{3,400})|([A-Za-z0-9_-]{20,400}))@[\w-]"
    rb"|://[\w.:-]{1,200}/t/([a-z]{2}-[0-9a-f-]{20})",
)
_INDEX_TOKEN = Rule(
    _INDEX_WHY,
    (b"_auth", b"_password", b"AuthToken", b"AuthIdent", b"token", b"password"),
    rb"(?m)^["
    rb" \t]*+[\"']?(?://[^\s:]{1,200}(?::\d+)?(?:/[^\s:]{0,200})?:)?(?:_authToken|_auth|_password"
    rb"|npmAuthToken|npmAuthIdent|token|password)"
    rb"[\"']?[ \t]*[=:][ \t]*[\"']?([^\s\"']{6,400})",
)
_SETTING = Rule(
    _PASSWORD,
    _WORDS,
    _START + _NAME + rb"[\"']?(?:[ \t]*+[=:][ \t]*+|[ \t]++)[\"']?([^\s\"',;#]{6,400})",
    guess=True,
)
_CODE = Rule(
    _PASSWORD,
    _WORDS,
    rb"(?m)^[ \t]*+(?:os\.environ\[)?[\"']?" + _NAME + rb"[\"']?\]?(?:[ \t]*:[ \t]*str)?[ \t]*[=:]["
    rb" \t]*[\"']((?=[^\s\"']{0,400}[0-9])[^\s\"']{8,400})[\"']",
    guess=True,
)
# Code in JSON, so quotes are escaped. It must have a digit and a letter, since prompts and names
# look alike.
_CELL = Rule(
    _PASSWORD,
    _WORDS,
    rb"[\"\s(,\[']" + _NAME + rb"(?:\\\"|')?[\])]?\s{0,9}[=:,]\s{0,9}(?:\\\"|')"
    rb"((?=[^\s\"'\\]{0,200}[0-9])(?=[^\s\"'\\]{0,200}[A-Za-z])[\w/+=.!@#%^&*-]{12,400})(?:\\\"|')",
    guess=True,
)
_KUBECONFIG = Rule(
    "it is a kubeconfig with credentials",
    (b"kind: Config", b'"kind": "Config"', b'"kind":"Config"'),
    rb"(?m)(?:^|[ {,\"])(?:client-key-data|(?:id-|refresh-)?token|password)\"?:"
    rb" *[\"']?([^\s\"',}]{8,4000})",
)
_MANIFEST = Rule(
    "it contains a Kubernetes secret",
    (b"kind: Secret\n", b"kind: Secret\r", b'kind: "Secret"'),
    rb"(?m)^[ \t]++[\"']?"
    + _NAME
    + rb"[\w.-]{0,80}[\"']?: *[\"']?([^\s\"'#|>]{8,4000})|\.dockerconfigjson:"
    rb" *[\"']?([A-Za-z0-9+/]{16})",
    guess=True,
)
_REGISTRY_LOGIN = Rule(
    "it contains a registry's credentials",
    (b'"auths"',),
    rb'"(?:auth|identitytoken)"\s{0,9}:\s{0,9}"([A-Za-z0-9+/=_.-]{8})',
)
_ACCOUNT = Rule(
    "it is a service account's key",
    (b"private_key",),
    rb'"type"\s{0,99}:\s{0,99}"(service_account)"',
)
_CLIENT = Rule(
    _PASSWORD,
    (b"ecret", b"refresh"),
    rb'"(?:client_?secret|clientSecret|refresh_token|secret_?access_?key|SecretAccessKey'
    rb'|secretKey)"\s{0,9}:\s{0,9}"([^"\s]{12,4000})"',
    guess=True,
)
_LOGIN = Rule(
    _PASSWORD,
    (b"password", b"token"),
    rb'"(?:password|token)"\s{0,9}:\s{0,9}"([^"\s]{6,4000})"',
    guess=True,
)
_WEB_KEY = Rule(_KEY_WHY, (b'"kty"',), rb'"d"\s{0,9}:\s{0,9}"([\w-]{40})')
_WIREGUARD = Rule(
    _KEY_WHY, (b"PrivateKey",), rb"(?m)^[ \t]*+PrivateKey[ \t]*=[ \t]*([A-Za-z0-9+/]{43}=)"
)
_XML = Rule(
    _PASSWORD,
    (b"assword",),
    rb"<password>([^<\s]{6,400})</password>|\"(?:ClearText)?Password\" value=\"([^\"]{6,400})\"",
    guess=True,
)
_BARE = Rule(_PASSWORD, (b"",), rb"\A\s{0,9}(\S{12,4000})\s{0,9}\Z")
_OBSCURED = Rule(
    _PASSWORD,
    (b"pass", b"token", b"secret"),
    rb"(?m)^[ \t]*+(?:pass|token|client_secret|secret_access_key)[ \t]*=[ \t]*(\S{8})",
)

_TEXT = (*TOKENS, _URL)
_INDEX = (*TOKENS, _INDEX_URL, _INDEX_TOKEN)
_ENVIRONMENT = (*TOKENS, _URL, _SETTING)
_YAML = (*TOKENS, _URL, _ENCODED_KEY, _KUBECONFIG, _MANIFEST)
_JSON = (_ACCOUNT, *TOKENS, _ENCODED_KEY, _REGISTRY_LOGIN, _CLIENT, _KUBECONFIG, _WEB_KEY, _URL)
KINDS: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(
        ("cfg", "gitconfig", "gitmodules", "in", "ini", "key", "lock", "sh", "toml", "txt"), _TEXT
    ),
    **dict.fromkeys(("cnf", "env", "properties", "tfvars"), _ENVIRONMENT),
    **dict.fromkeys(("kubeconfig", "yaml", "yml"), _YAML),
    **dict.fromkeys(("", "conf"), (*_YAML, _WIREGUARD)),
    **dict.fromkeys(("config", "xml"), (_XML,)),
    **dict.fromkeys(("token", "apikey"), (_BARE,)),
    "ipynb": (*TOKENS, _URL, _CELL),
    "json": _JSON,
}
"""Rules for files by suffix: the part of the name after its last dot (lower case)."""
REQUIREMENT = (*TOKENS, _INDEX_URL)
"""Rules for requirements files."""
ENVIRONMENT = _ENVIRONMENT
"""Rules for files of environment variables."""
NAMED: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(
        (
            *(
                ".condarc",
                "condarc",
                ".npmrc",
                ".yarnrc",
                ".yarnrc.yml",
                ".sentryclirc",
                "auth.toml",
                "bunfig.toml",
                "config.toml",
            ),
            *(
                "pip.conf",
                "pip.ini",
                "pipfile",
                "pdm.toml",
                ".pdm.toml",
                "poetry.toml",
                "pyproject.toml",
                "uv.toml",
            ),
        ),
        _INDEX,
    ),
    **dict.fromkeys(
        ("environment.yml", "environment.yaml", "conda.yml", "conda.yaml", "pipfile.lock"),
        REQUIREMENT,
    ),
    **dict.fromkeys(
        (
            *(
                "secrets",
                ".secrets",
                "secrets.toml",
                ".secrets.toml",
                "secrets.ini",
                "secrets.json",
                ".secrets.json",
                "secrets.yaml",
            ),
            *(
                "secrets.yml",
                ".secrets.yaml",
                "secret.yaml",
                "secret.yml",
                "secrets.sh",
                "env.sh",
                "credentials",
                "credentials.toml",
            ),
            *(
                "credentials.ini",
                "credentials.yaml",
                "credentials.yml",
                "credentials.cfg",
                "connections.toml",
                "profiles.toml",
            ),
            *(
                "profiles.yml",
                "database.yml",
                "airflow.cfg",
                "odbc.ini",
                ".odbc.ini",
                "config.local",
                ".comet.config",
                ".coveralls.yml",
            ),
            *(".synapseconfig",),
        ),
        (*_ENVIRONMENT, _ENCODED_KEY, _MANIFEST),
    ),
    **dict.fromkeys(
        ("secrets.py", "credentials.py", "local_settings.py", "jupyter_server_config.py"),
        (*TOKENS, _URL, _CODE),
    ),
    **dict.fromkeys(("settings.py", "config.py", "conf.py", "production.py", "prod.py"), TOKENS),
    **dict.fromkeys(
        (
            "token",
            "token.txt",
            "api_key",
            "api_key.txt",
            ".api_key",
            "apikey.txt",
            "secret_key",
            "secret_key.txt",
        ),
        (_BARE,),
    ),
    **dict.fromkeys(("secret.txt", "master.key", ".secret_key"), (_BARE,)),
    "auth.json": (*_JSON, _LOGIN),
    "rclone.conf": (*TOKENS, _OBSCURED),
    "settings.xml": (_XML,),
}
"""Rules for files by their names (lower case), instead of those in `KINDS`."""

_MADE_UP = (
    rb"(?i)[$<]|\{\{|\{\w*\}|%[({]|enc\[|vault:|!(?:vault|ref|sub|env|secret)|op://|arn:|env[:.]"
    rb"|os\.|(?:null|none|true|false)\b|(.)\1*$"
    rb"|[\s\S]*(?:example|change[-_ ]?(?:me|this|it)\b|placeholder|your|x{4}|\*{3}|\.{3}|0{7}|dummy"
    rb"|redacted|replace|insert|fake|not[-_]?(?:a[-_]?)?(?:so[-_]?)?(?:real|secret)|\$\{)"
)
_COMMON = (
    rb"(?i)(?:user|admin|root|postgres|postgresql|mysql|airflow|guest|tiger|foo|bar|baz|test"
    rb"(?:ing)?|(?:my|the|some|a)?[-_]?(?:secret|token|password|"
    rb"passwd|pass|pwd|api[-_]?key|key))[-_]?(?:user|pass|password|secret|key|token)?s?\d{0,3}$"
    rb"|[a-z]+[-_](?:password|secret|token|key)s?$|[a-z]+(?:_[a-z]+)+$|\d{1,9}$|[~/.][\w./-]*$"
    rb"|[A-Za-z_]+[.(\[]"
)


def is_placeholder(value: bytes, *, guess: bool) -> bool:
    """Whether a value is a placeholder for a secret, as in templates.

    For a value found by a `guess`, common words count as placeholders, too.
    """
    return bool(re.match(_MADE_UP, value) or (guess and re.match(_COMMON, value)))
