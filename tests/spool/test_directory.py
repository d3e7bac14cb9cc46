from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import pytest

from pbmon.spool import directory
from pbmon.spool.books import Books
from pbmon.spool.directory import MAX_BYTES, Home, UnusableError, candidates, filesystem, slug
from pbmon.spool.frames import CHANNELS
from pbmon.spool.queue import Spool
from tests.spool.spools import Spools

TEMPORARY = Path(tempfile.gettempdir()) / f"pbmon-{os.geteuid()}"
MB = 2**20


# --- which directory ---


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, []),
        ({"HOME": "/h"}, ["/h/.local/state/pbmon"]),
        ({"HOME": "h"}, []),
        ({"HOME": " "}, []),
        ({"HOME": "/h", "XDG_STATE_HOME": "/x"}, ["/x/pbmon"]),
        ({"HOME": "/h", "XDG_STATE_HOME": ""}, ["/h/.local/state/pbmon"]),
        ({"HOME": "/h", "XDG_STATE_HOME": "x/y"}, ["/h/.local/state/pbmon"]),
        ({"XDG_STATE_HOME": "x/y"}, []),
        ({"STATE_DIRECTORY": "/s"}, ["/s/pbmon"]),
        ({"STATE_DIRECTORY": "/s:/t", "HOME": "/h"}, ["/s/pbmon", "/h/.local/state/pbmon"]),
        ({"STATE_DIRECTORY": "s", "XDG_STATE_HOME": "/x"}, ["/x/pbmon"]),
    ],
)
def test_candidates(environ, found):
    assert candidates(None, environ) == [*map(Path, found), TEMPORARY]


def test_a_configured_directory_is_the_only_candidate(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    environ = {"HOME": "/h", "STATE_DIRECTORY": "/s"}
    assert candidates("/var/lib/shop", environ) == [Path("/var/lib/shop")]
    assert candidates("~/state", environ) == [Path("/h/state")]
    assert candidates("state", environ) == [Path.cwd() / "state"]  # chdir() changes nothing
    assert len(candidates("~nobody-of-this-name/state", environ)) == 1


def test_services_have_different_directories():
    names = ["shop", "shop/2", "shop 2", "shop_2", "", ".", "..", "é", "e", "x" * 60, "x" * 61,
             "SHOP", "\ud800"]  # fmt: skip
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert slugs[0] == "shop"
    for each in slugs:
        assert each and not each.startswith(".") and "/" not in each and len(each) < 64


# --- who may use it ---


def opened(path):
    made = Home(path, "shop")
    os.close(made._lock_fd)
    return made


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o177])
def test_it_is_private_whatever_the_umask(tmp_path, mask):
    old = os.umask(mask)
    try:
        home = opened(tmp_path / "state")
    finally:
        os.umask(old)
    assert home.root.stat().st_mode & 0o7777 == 0o700
    assert home.path.stat().st_mode & 0o7777 == 0o700
    assert (home.root / ".lock").stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("inner", ["spool", "spool/shop"])
class TestRefused:
    @pytest.fixture
    def place(self, tmp_path, inner):
        opened(tmp_path / "state")
        return tmp_path / "state" / inner

    def refused(self, tmp_path, *parts):
        with pytest.raises(UnusableError) as caught:
            opened(tmp_path / "state")
        for part in parts:
            assert str(part) in str(caught.value)

    @pytest.mark.parametrize("mode", [0o755, 0o777, 0o710, 0o701])
    def test_open_to_others(self, tmp_path, place, mode):
        place.chmod(mode)
        self.refused(tmp_path, place, f"{mode:04o}", "chmod 700")

    def test_a_symlink(self, tmp_path, place):
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere")
        self.refused(tmp_path, place, "no directory; remove it")

    def test_a_file(self, tmp_path, place):
        place.rename(tmp_path / "elsewhere")
        place.write_text("x")
        self.refused(tmp_path, place, "no directory; remove it")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_another_users(self, tmp_path, place):
        os.chown(place, 65534, -1)
        self.refused(tmp_path, place, "another user (uid 65534)", "chown it to 0")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_that_another_user_made_in_a_public_place_is_refused(tmp_path):
    public = tmp_path / "tmp"
    public.mkdir()
    public.chmod(0o1777)
    (public / "pbmon").mkdir()
    opened(public / "pbmon")
    os.chown(public / "pbmon", 65534, -1)
    with pytest.raises(UnusableError, match="another user"):
        opened(public / "pbmon")
    # In a private place an administrator may have given it to somebody.
    public.chmod(0o755)
    opened(public / "pbmon")


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "state").write_text("x")
    with pytest.raises(UnusableError, match="give this user a directory"):
        opened(tmp_path / "state")
    with pytest.raises(UnusableError, match="give this user a directory"):
        opened(tmp_path / "state" / "below")


def unusable_for_nobody(path, texts):
    """In a process of its own, as user 65534."""
    os.setgid(65534)
    os.setuid(65534)
    try:
        opened(path)
    except UnusableError as error:
        texts.put(str(error))
    else:
        texts.put("it was usable")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_that_cant_be_written_to_is_refused(volume):
    place = volume(MB)  # everything above it can be entered by everybody
    place.chmod(0o555)
    texts = multiprocessing.get_context("spawn").Queue()
    process = multiprocessing.get_context("spawn").Process(
        target=unusable_for_nobody, args=(place / "state", texts)
    )
    process.start()
    text = texts.get(timeout=30)
    process.join()
    assert f"{place}/state can't be used (Permission denied); give this user" in text


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_is_unusable(tmp_path, monkeypatch, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(UnusableError, match=os.strerror(number)):
        opened(tmp_path / "state")


def test_without_flock_it_is_unusable(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "fcntl", None)
    with pytest.raises(UnusableError, match="flock"):
        opened(tmp_path / "state")


# --- how much of it ---


@pytest.fixture
def free(monkeypatch):
    """free(bytes): so much is free on every disk."""

    def pretend(size):
        class Volume:
            f_bavail, f_frsize = size // 4096, 4096

        monkeypatch.setattr(os, "statvfs", lambda path: Volume)

    return pretend


@pytest.mark.parametrize(
    ("size", "limit"),
    [(100_000 * MB, MAX_BYTES), (5120 * MB, MAX_BYTES), (1000 * MB, 100 * MB), (0, 0)],
)
def test_the_limit_is_a_tenth_of_the_free_space_or_512_mb(tmp_path, free, size, limit):
    free(size)
    assert opened(tmp_path / "state").limit == limit


def test_what_the_spools_take_themselves_makes_the_limit_no_smaller(tmp_path, free):
    free(1000 * MB)
    (tmp_path / "state" / "spool" / "other").mkdir(parents=True, mode=0o700)
    (tmp_path / "state" / "spool").chmod(0o700)
    with (tmp_path / "state" / "spool" / "other" / "x.seg").open("wb") as file:
        file.truncate(50 * MB)
    home = opened(tmp_path / "state")
    assert home.limit == 105 * MB
    assert home.used() == 50 * MB


@pytest.mark.parametrize(
    ("limit", "size"), [(512 * MB, MB), (64 * MB, MB), (32 * MB, MB // 2), (MB, 64 * 1024)]
)
def test_segments_are_small_on_small_volumes(tmp_path, limit, size):
    home = opened(tmp_path / "state")
    home.limit = limit
    assert home.segment_size == size


def fill_up(spool, channel):
    payload = b"x" * 20_000
    for _ in range(5000):
        if reason := spool.append(channel, payload, 1):
            return reason
    raise AssertionError("it never filled up")


def test_one_channel_leaves_room_for_the_others(tmp_path, free):
    free(200 * MB)
    spools = Spools(home := Home(tmp_path / "state", "shop"), Books())
    spool = spools.make()
    assert fill_up(spool, "logs") == "full"
    limit = home.limit
    assert 0.65 * limit < spool.size("logs") <= 0.7 * limit
    assert spool.append("traces", b"x" * 20_000, 1) == ""
    assert fill_up(spool, "traces") == "full"
    assert 0.9 * home.limit < home.used() <= home.limit
    # What another service waits with counts too.
    other = Spool(Home(tmp_path / "state", "other"), Books())
    assert other.append("logs", b"x", 1) == "full"
    os.close(other.home._lock_fd)
    other.close()
    spools.let_go()
    os.close(home._lock_fd)


def fill_one_of_many(path, ready, begin, sizes):
    home = Home(path, "shop")
    spool = Spool(home, Books())
    taken = [spool.append(channel, b"x" * 1000, 1) for channel in CHANNELS]
    ready.put(taken)
    begin.wait(60)
    for channel in CHANNELS:
        fill_up(spool, channel)
    sizes.put((home.used(), home.limit))
    begin.clear()


def test_eight_processes_on_a_small_volume_find_a_place_each_and_keep_the_limit(volume):
    place = volume(64 * MB)
    context = multiprocessing.get_context("spawn")
    ready, sizes, begin = context.Queue(), context.Queue(), context.Event()
    processes = [
        context.Process(target=fill_one_of_many, args=(place / "state", ready, begin, sizes))
        for _ in range(8)
    ]
    for process in processes:
        process.start()
    assert [ready.get(timeout=60) for _ in processes] == [["", "", "", ""]] * 8
    begin.set()
    measured = [sizes.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    used, limit = measured[-1]
    assert limit <= 6.4 * MB
    # The limit follows the free space, which the last of them made smaller.
    assert 0.8 * limit < used <= 1.02 * limit


def test_a_process_stopped_with_the_lock_does_not_stop_the_others(tmp_path):
    home = Home(tmp_path / "state", "shop")
    spool = Spool(home, Books())
    held = os.open(home.root / ".lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    began_s = time.monotonic()
    assert spool.append("logs", b"x", 1) == ""
    assert 0.09 < time.monotonic() - began_s < 5
    os.close(held)
    spool.forget()
    os.close(home._lock_fd)


def test_a_forked_childs_home_has_a_lock_of_its_own(tmp_path):
    home = Home(tmp_path / "state", "shop")
    parents = os.dup(home._lock_fd)  # what the parent has after a fork
    home.forget()
    fcntl.flock(parents, fcntl.LOCK_EX)
    assert not directory.lock(home._lock_fd)
    os.close(parents)
    os.close(home._lock_fd)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOENT])
def test_a_forked_child_that_gets_no_lock_of_its_own_keeps_no_number_of_the_parents(
    tmp_path, monkeypatch, number
):
    home = Home(tmp_path / "state", "shop")
    parents = home._lock_fd

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(UnusableError, match=f"{os.strerror(number)}.*give this user"):
        home.forget()
    assert home._lock_fd == -1
    with pytest.raises(OSError):
        os.fstat(parents)


# --- file systems ---


MOUNTS = r"""22 1 0:20 / / rw,relatime - ext4 /dev/sda rw
23 22 0:21 / /srv rw shared:1 - nfs4 server:/x rw
24 23 0:22 / /srv/own\040disk rw - btrfs /dev/sdb rw
25 22 0:23 / /proc rw master:3 propagate_from:2 - proc proc rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "ext4"), ("/opt/x", "ext4"), ("/srv", "nfs4"), ("/srv/a/b", "nfs4"),
     ("/srvx", "ext4"), ("/srv/own disk/a", "btrfs"), ("/proc/1", "proc")],
)  # fmt: skip
def test_the_file_system_of_a_path(monkeypatch, path, kind):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: MOUNTS)
    monkeypatch.setattr(os.path, "realpath", str)
    assert filesystem(Path(path)) == kind


@pytest.mark.parametrize(
    ("kind", "mapped"),
    [("ext4", True), ("xfs", True), ("tmpfs", True), ("overlay", True), ("", True),
     ("nfs", False), ("nfs4", False), ("cifs", False), ("smb3", False), ("fuse.sshfs", False),
     ("virtiofs", False), ("btrfs", False), ("zfs", False), ("9p", False)],
)  # fmt: skip
def test_no_file_is_mapped_where_a_full_disk_would_kill(tmp_path, monkeypatch, kind, mapped):
    monkeypatch.setattr(directory, "filesystem", lambda path: kind)
    assert opened(tmp_path / "state").mapped is mapped
