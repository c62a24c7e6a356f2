"""Files of a guest: found as the guest would find them, and nothing that it plants leads out of its tree."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll.host.file_tree import Tree

SECRET = "the host's"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """The tree's top; beside it is what nobody may see."""
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    (top / "etc/passwd").write_text("the guest's")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(SECRET)
    (tmp_path / "secret").write_text(SECRET)
    return top


@pytest.fixture
def tree(top: Path) -> Iterator[Tree]:
    fds = [os.open(top, os.O_PATH), os.open("/proc/self/fd", os.O_PATH)]
    before = len(os.listdir("/proc/self/fd"))
    yield Tree(*fds)
    assert len(os.listdir("/proc/self/fd")) == before
    for fd in fds:
        os.close(fd)


def read(tree: Tree, path: str) -> str:
    fd = tree.open(path, os.O_RDONLY)
    with open(fd) as file:
        return file.read()


def write(tree: Tree, path: str, text: str, **options: bool) -> bool:
    fd, made = tree.create(path, os.O_WRONLY | os.O_TRUNC, 0o600, **options)
    with open(fd, "w") as file:
        file.write(text)
    return made


@pytest.mark.parametrize(
    "path", ["etc/passwd", "/etc/passwd", "../etc/passwd", "/../../etc/../etc/passwd", "l/passwd", "abs", "up"]
)
def test_paths_begin_and_end_in_the_tree(tree: Tree, top: Path, path: str) -> None:
    (top / "l").symlink_to("/etc")
    (top / "abs").symlink_to("/etc/passwd")
    (top / "up").symlink_to("../../../etc/passwd")
    assert read(tree, path) == "the guest's"
    assert not write(tree, path, "new")
    assert (top / "etc/passwd").read_text() == "new" and (top.parent / "etc/passwd").read_text() == SECRET


def test_links_out_are_links_to_nothing(tree: Tree, top: Path) -> None:
    outside = top.parent / "secret"
    (top / "abs").symlink_to(outside)
    (top / "up").symlink_to("../secret")
    (top / "magic").symlink_to(f"/proc/{os.getpid()}/root/{outside}")
    for name in ("abs", "up", "magic", "abs/x"):
        with pytest.raises(OSError) as caught:
            read(tree, name)
        assert caught.value.errno in (errno.ENOENT, errno.ENOTDIR)
    assert tree.read_link("abs") == str(outside) and stat.S_ISLNK(tree.stat("up", follow=False).st_mode)


def test_magic_links_are_not_followed(top: Path) -> None:
    """A tree with the real /proc in it, as a privileged guest's is."""
    fds = [os.open("/", os.O_PATH), os.open("/proc/self/fd", os.O_PATH)]
    tree = Tree(*fds)
    try:
        for path in (f"/proc/{os.getpid()}/root/etc/passwd", f"/proc/{os.getpid()}/cwd", f"/proc/self/fd/{fds[0]}/etc/passwd"):
            with pytest.raises(OSError) as caught, tree.pinned(path, follow=True):
                pass
            assert caught.value.errno == errno.ELOOP
        assert read(tree, "/proc/self/comm")
    finally:
        for fd in fds:
            os.close(fd)


def test_new_files_are_made_where_a_dangling_link_leads(tree: Tree, top: Path) -> None:
    (top / "run").mkdir()
    (top / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    (top / "run/resolv.conf").symlink_to("/run/real")
    assert write(tree, "/etc/resolv.conf", "nameserver")
    assert (top / "run/real").read_text() == "nameserver"
    (top / "out").symlink_to(top.parent / "made")
    with pytest.raises(FileNotFoundError):
        write(tree, "out", "x")
    (top / "up").symlink_to("../made")
    assert write(tree, "up", "x") and (top / "made").read_text() == "x" and not (top.parent / "made").exists()


def test_loops_of_links_end(tree: Tree, top: Path) -> None:
    (top / "a").symlink_to("b")
    (top / "b").symlink_to("a")
    for action in (lambda: read(tree, "a"), lambda: write(tree, "a", "")):
        with pytest.raises(OSError) as caught:
            action()
        assert caught.value.errno == errno.ELOOP


def test_an_exclusive_file_is_new(tree: Tree, top: Path) -> None:
    (top / "l").symlink_to("nowhere")
    for name in ("l", "etc/passwd"):
        with pytest.raises(FileExistsError):
            tree.create(name, os.O_WRONLY, 0o600, exclusive=True)
    assert write(tree, "fresh", "x", exclusive=True)


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def plant_device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero, which would never end


@pytest.mark.parametrize("plant", [plant_fifo, plant_socket, plant_device])
def test_nothing_but_files_and_directories_is_opened(tree: Tree, top: Path, plant: Callable[[Path], None]) -> None:
    plant(top / "it")
    (top / "l").symlink_to("it")
    for name in ("it", "l"):
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDONLY | os.O_DIRECTORY):
            with pytest.raises(OSError) as caught:
                tree.open(name, flags)
            assert caught.value.errno == errno.ENXIO
        with pytest.raises(OSError) as caught:
            write(tree, name, "x")
        assert caught.value.errno == errno.ENXIO
    tree.remove("it")
    assert not (top / "it").exists()


def test_directories_are_no_files(tree: Tree) -> None:
    with pytest.raises(IsADirectoryError):
        tree.open("etc", os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        tree.open("etc/passwd/x", os.O_RDONLY)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(tree: Tree, path: str) -> None:
    for action in (tree.remove, lambda path: tree.open(path, os.O_RDONLY), lambda path: tree.make_link("x", path)):
        with pytest.raises(OSError) as caught:
            action(path)
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("path", ["/", ".", "..", "etc/..", "etc/."])
def test_the_top_is_not_touched(tree: Tree, top: Path, path: str) -> None:
    for action in (tree.remove, tree.remove_directory, lambda path: tree.make_directory(path, 0o755)):
        with pytest.raises(OSError) as caught:
            action(path)
        assert caught.value.errno in (errno.EBUSY, errno.EINVAL)


def test_directories_links_and_names(tree: Tree, top: Path) -> None:
    tree.make_directory("d", 0o711)
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o711
    tree.make_link("d/l", "../etc/passwd")
    tree.make_name("d/h", "etc/passwd")
    tree.make_name("d/hl", "d/l")
    assert (top / "d/h").stat().st_nlink == 2 and (top / "d/hl").is_symlink()
    with pytest.raises(FileExistsError):
        tree.rename("d/h", "etc/passwd", replace=False)
    tree.rename("d/hl", "d/h", replace=True)
    assert (top / "d/h").is_symlink()
    with pytest.raises(OSError):
        tree.remove("d")
    for name in ("d/h", "d/l", "d"):
        tree.remove(name)
    assert sorted(path.name for path in top.iterdir()) == ["etc"]


def test_attributes_are_those_of_what_a_link_leads_to(tree: Tree, top: Path) -> None:
    (top / "l").symlink_to("etc/passwd")
    tree.change_mode("l", 0o4750)
    tree.change_times("l", 1, 2)
    tree.truncate("l", 3)
    found = (top / "etc/passwd").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_size) == (0o4750, 3)
    assert tree.stat("l", follow=True).st_ino == found.st_ino
    if os.geteuid() == 0:
        tree.change_owner("l", 5, -1)
        tree.change_owner("l", 6, 7, follow=False)
        assert (top / "etc/passwd").stat().st_uid == 5 and (top / "l").lstat().st_gid == 7


def test_a_guest_that_swaps_names_gains_nothing(tree: Tree, top: Path) -> None:
    """The race of CVE-2018-15664: a directory is swapped for a link to the host's while it is worked below it."""
    for name in ("real", "link"):
        (top / name).mkdir() if name == "real" else (top / name).symlink_to(top.parent / "etc")
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for source, target in (("real", "d"), ("d", "real"), ("link", "d"), ("d", "link")):
                os.rename(top / source, top / target)

    guest = threading.Thread(target=swap)
    guest.start()
    try:
        for number in range(600):
            try:
                write(tree, f"d/{number % 7}", "x")
                tree.make_directory("d/sub", 0o755)
                tree.change_mode("d/sub", 0o700)
            except OSError:
                pass
            try:
                assert read(tree, "d/passwd") != SECRET
            except OSError:
                pass
            for name in ("d/sub", "d/passwd", f"d/{number % 7}"):
                try:
                    tree.remove(name)
                except OSError:
                    pass
    finally:
        ended.set()
        guest.join()
    assert sorted(path.name for path in (top.parent / "etc").iterdir()) == ["passwd"]
    assert (top.parent / "etc/passwd").read_text() == SECRET
