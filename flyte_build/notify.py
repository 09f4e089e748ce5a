"""`flyte.notify`: notifications of the runs that a trigger has started."""

from __future__ import annotations

from .declarations.notification import Email as Email
from .declarations.notification import NamedDelivery as NamedDelivery
from .declarations.notification import NamedRule as NamedRule
from .declarations.notification import Notification as Notification
from .declarations.notification import Slack as Slack
from .declarations.notification import Teams as Teams
from .declarations.notification import Webhook as Webhook
