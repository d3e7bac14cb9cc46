"""A Django site with users and sessions in SQLite. Importing it configures Django for the process:
import it where nothing else of Django is."""

from __future__ import annotations

import asyncio
import os

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="no secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["DJANGO_SITE_DATABASE"],
            "OPTIONS": {"timeout": 30},
        }
    },
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    MIGRATION_MODULES={"auth": None, "contenttypes": None, "sessions": None},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    LOGGING_CONFIG=None,
    USE_TZ=True,
)
django.setup()

from django.contrib import auth  # noqa: E402
from django.core.exceptions import PermissionDenied  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import Http404, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.urls import include, path, re_path  # noqa: E402
from django.views import View  # noqa: E402

import pbmon  # noqa: E402
from pbmon import identity  # noqa: E402


def prepare():
    """The tables, and a user whose id is 1."""
    call_command("migrate", run_syncdb=True, verbosity=0)
    auth.get_user_model().objects.create_user("ann")


def who(note=""):
    found = identity.current()
    return {"note": note, "user": found and found.user_id, "session": found and found.session_id}


def ok(request, *args, **kwargs):
    return HttpResponse("ok")


def untouched(request):
    """Asks for nobody: neither user nor session is loaded."""
    return JsonResponse({**who(), "accessed": request.session.accessed})


def asked(request):
    before = who("before")
    pk = request.user.pk
    return JsonResponse({"seen": [before, who(f"{pk}")]})


async def asked_async(request):
    before = who("before")
    pk = (await request.auser()).pk
    return JsonResponse({"seen": [before, who(f"{pk}")]})


def opened(request):
    """The session is loaded, the user is not."""
    before = who("before")
    request.session.get("anything")
    return JsonResponse({"seen": [before, who("after")], "lazy": "_cached_user" in vars(request)})


def login(request):
    auth.login(request, auth.get_user_model().objects.get(pk=1))
    return JsonResponse(who())


def logout(request):
    auth.logout(request)
    return JsonResponse(who())


def bought(request):
    request.session.get("anything")
    pbmon.track("bought", {"amount": 3})
    return HttpResponse("ok")


def broken(request):
    raise LookupError("a fault of the application")


async def broken_async(request):
    raise KeyError("a fault of the application")


def forbidden(request):
    raise PermissionDenied


def missing(request):
    raise Http404


def stream(request):
    async def parts():
        yield "a"
        await asyncio.sleep(0)
        yield "b"

    return StreamingHttpResponse(parts())


def broken_stream(request):
    async def parts():
        yield "a"
        raise LookupError("in the middle")

    return StreamingHttpResponse(parts())


class Things(View):
    def get(self, request):
        return HttpResponse("ok")


urlpatterns = [
    path("", ok),
    path("users/<int:pk>/", ok),
    path("files/<path:rest>", ok),
    re_path(r"^archive/(?P<year>[0-9]{4})/(?:page-(?P<page>\d+)/)?$", ok),
    path("api/<slug:version>/", include([path("items/<uuid:id>", ok), re_path(r"^x/(\d+)/$", ok)])),
    path("things/", Things.as_view()),
    path("untouched", untouched),
    path("asked", asked),
    path("asked-async", asked_async),
    path("opened", opened),
    path("login", login),
    path("logout", logout),
    path("bought", bought),
    path("broken", broken),
    path("broken-async", broken_async),
    path("forbidden", forbidden),
    path("missing", missing),
    path("stream", stream),
    path("broken-stream", broken_stream),
]
