"""django-oauth-toolkit on 127.0.0.1, any free port, with rotation and reuse protection.

    python server.py DIRECTORY GRACE_PERIOD_S

Its database goes into DIRECTORY. Prints one line of JSON when it serves; when its input ends, a second one: what it saw.
"""

import json
import sys
import threading

import django
from django.conf import settings
from django.core.management import call_command

CLIENT = {"client_id": "django: a+b%20c &=/?~", "client_secret": "s:e+c%72 &=/?~%C3%A9"}
USER = {"username": "alice", "password": "password"}

directory, grace_period_s = sys.argv[1:]
settings.configure(
    SECRET_KEY="tests only",
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "oauth2_provider"],
    MIDDLEWARE=[
        f"{__name__}.note",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    # Its write locks are taken at once, so that threads wait for each other.
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{directory}/db.sqlite3",
            "OPTIONS": {"timeout": 60, "transaction_mode": "IMMEDIATE"},
        }
    },
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {"login.html": '<form method="post">{% csrf_token %}{{ form }}</form>'},
                    ),
                    "django.template.loaders.app_directories.Loader",
                ],
            },
        }
    ],
    ROOT_URLCONF=__name__,
    LOGIN_URL="/login/",
    USE_TZ=True,
    # The secret of the client is hashed, too.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    OAUTH2_PROVIDER={
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": int(grace_period_s),
    },
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.contrib.auth.views import LoginView  # noqa: E402
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.models import AccessToken, Application, RefreshToken  # noqa: E402

urlpatterns = [
    path("login/", LoginView.as_view(template_name="login.html")),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]

token_requests = []


def note(get_response):
    """What was asked of the token endpoint, and how that was answered."""

    def handle(request):
        response = get_response(request)
        if request.path == "/o/token/":
            token_requests.append([request.POST["grant_type"], response.status_code])
        return response

    return handle


call_command("migrate", verbosity=0)
User.objects.create_user(**USER)
Application.objects.create(
    **CLIENT,
    redirect_uris="http://127.0.0.1/callback",
    client_type=Application.CLIENT_CONFIDENTIAL,
    authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
)


class Handler(WSGIRequestHandler):
    """One that prints nothing."""

    def log_message(self, *_):
        pass


server = ThreadedWSGIServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
server.set_app(get_wsgi_application())
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"port": server.server_port, **CLIENT, **USER}), flush=True)

sys.stdin.read()
saw = {
    "token_requests": token_requests,
    "live_refresh_tokens": RefreshToken.objects.filter(revoked=None).count(),
    "access_tokens": AccessToken.objects.count(),
}
print(json.dumps(saw), flush=True)
