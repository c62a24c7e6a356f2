"""The seeds of the cloud variants."""

from __future__ import annotations

import pytest
import yaml

from atoll.domain import image_metadata, templating
from atoll.domain.architectures import find
from atoll.domain.templating import Value
from atoll.host.imagebuild import cloud, recipe, template

ID = "468fd25b-4f7c-4319-ab27-d7fd7d958433"


def rendered(name: str, config: dict[str, str]) -> str:
    def config_get(key: str, default: Value) -> str:
        return config.get(key, str(default))

    return templating.render(cloud.FILES[name], {"container": {"name": "c1"}, "config_get": config_get})


def test_meta_data() -> None:
    config = {"volatile.cloud-init.instance-id": ID, "user.meta-data": "public-keys: k"}
    assert yaml.safe_load(rendered("cloud-init-meta.tpl", config)) == {
        "instance-id": ID,
        "local-hostname": "c1",
        "public-keys": "k",
    }


@pytest.mark.parametrize("kind", ["user", "vendor"])
def test_the_present_name_of_a_key_counts_before_the_former(kind: str) -> None:
    present, former = f"cloud-init.{kind}-data", f"user.{kind}-data"
    name = f"cloud-init-{kind}.tpl"
    assert rendered(name, {present: "#!/bin/sh\n", former: "no"}) == "#!/bin/sh\n\n"
    assert rendered(name, {former: "#!/bin/sh"}) == "#!/bin/sh\n"
    assert rendered(name, {}) == "#cloud-config\n{}\n"


def test_a_network_by_dhcp_unless_there_is_another() -> None:
    subnets = [{"type": "dhcp", "control": "auto"}]
    assert yaml.safe_load(rendered("cloud-init-network.tpl", {}))["config"] == [
        {"type": "physical", "name": "eth0", "subnets": subnets}
    ]
    assert rendered("cloud-init-network.tpl", {"cloud-init.network-config": "version: 2"}) == "version: 2\n"


@pytest.mark.parametrize("row", recipe.RECIPES, ids=lambda row: row.name)
def test_every_template_of_an_image_has_its_text(row: recipe.Recipe) -> None:
    made = template.metadata(row, find("x86_64"))
    assert image_metadata.parse(image_metadata.dump(made)) == made
    texts = {**template._FILES, **(cloud.FILES if row.has_cloud_init else {})}
    assert {each.template for each in made.templates.values()} == set(texts)
    assert made.properties["variant"] == ("cloud" if row.name.endswith("/cloud") else "default")
