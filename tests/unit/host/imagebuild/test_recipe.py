"""Recipes: their names, and what may be added to them."""

from __future__ import annotations

import pytest

from atoll.domain.errors import BadRequest
from atoll.host.imagebuild import recipe
from atoll.host.imagebuild.recipe import Distribution


@pytest.mark.parametrize("name", ["debian/11", "debian/12", "debian/13", "ubuntu/22.04", "ubuntu/24.04", "busybox"])
def test_found_by_name(name: str) -> None:
    assert recipe.find(name).name == name


def test_found_by_release() -> None:
    assert recipe.find("debian/bookworm") is recipe.find("debian/12")
    assert recipe.find("ubuntu/noble").distribution is Distribution.UBUNTU
    assert recipe.find("debian/bookworm/cloud") is recipe.find("debian/12/cloud")


def test_cloud_variants_have_cloud_init() -> None:
    found = recipe.find("debian/12/cloud", packages=["nginx"])
    assert found.variant == "custom" and {"cloud-init", "nginx"} < set(found.packages)
    assert recipe.find("debian/12/cloud").variant == "cloud"
    assert "cloud-init" not in recipe.find("debian/12").packages


@pytest.mark.parametrize("name", ["", "debian", "debian/99", "../debian/12", "Debian/12", "debian/cloud", "busybox/cloud"])
def test_unknown_names_list_what_there_is(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        recipe.find(name)
    assert "debian/12" in str(caught.value) and "busybox" in str(caught.value)


def test_packages_are_added_once() -> None:
    custom = recipe.find("debian/12", packages=["nginx", "dbus"])
    assert custom.packages.count("dbus") == 1 and "nginx" in custom.packages
    assert (custom.variant, recipe.find("debian/12").variant) == ("custom", "default")


@pytest.mark.parametrize("package", ["", "-rf", "a b", "--hook", "$(id)", "A", "a,b", "a\nb"])
def test_package_names_are_checked(package: str) -> None:
    with pytest.raises(BadRequest):
        recipe.find("debian/12", packages=[package])


def test_busybox_has_no_packages() -> None:
    with pytest.raises(BadRequest):
        recipe.find("busybox", packages=["nginx"])
