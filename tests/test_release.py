"""Version, changelog and citation agree; the page of licences has each package that is required."""

import shutil

import pytest

import d3pm_jax
from tools import licences, release

FILES = ("pyproject.toml", "d3pm_jax/__init__.py", "CHANGELOG.md", "CITATION.cff")


@pytest.fixture
def copy(tmp_path):
    """A folder with copies of the files that state the version."""
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(release.ROOT / name, path)
    return tmp_path


def test_all_files_state_the_version():
    release.check_versions()
    assert set(release.read_versions()) == set(FILES)
    assert release.read_versions()["pyproject.toml"] == d3pm_jax.__version__


@pytest.mark.parametrize("name", FILES)
def test_another_version_in_one_file_is_refused(copy, name):
    path = copy / name
    text = path.read_text()
    path.write_text(text.replace(d3pm_jax.__version__, "9.8.7", 1))
    with pytest.raises(release.ReleaseError, match=r"the version differs: .*9\.8\.7"):
        release.check_versions(copy)


def test_a_changelog_of_another_day_is_refused(copy):
    path = copy / "CITATION.cff"
    path.write_text(path.read_text().replace("date-released: 20", "date-released: 19"))
    with pytest.raises(release.ReleaseError, match="the version differs"):
        release.check_versions(copy)


def test_the_page_of_licences_has_each_direct_dependency():
    rows = [line.split(" | ") for line in licences.PAGE.read_text().splitlines() if line.startswith("| ")]
    names = [row[0].removeprefix("| ") for row in rows[1:]]  # below the titles
    assert names == sorted(licences.list_users())


@pytest.mark.parametrize(
    "licence", ["GPL-3.0-or-later", "MPL-2.0", "Other/Proprietary License", "not stated"]
)
def test_a_licence_that_asks_for_more_needs_a_remark(licence):
    assert licences.NEEDS_REMARK.search(licence)


@pytest.mark.parametrize(
    "licence", ["MIT", "Apache-2.0 AND BSD-3-Clause", "Python Software Foundation License"]
)
def test_a_permissive_licence_needs_none(licence):
    assert not licences.NEEDS_REMARK.search(licence)


def test_the_requirements_of_an_extra_include_those_of_the_extras_that_it_names():
    docs = release.list_requirements("docs")
    assert set(release.list_requirements("train")) < set(docs)
    assert not any(requirement.startswith("d3pm-jax") for requirement in docs)


def test_a_release_tries_each_extra():
    tried = {name.split(":")[1] for name in release.list_names()}
    assert tried == {*release.IMPORTS, "compiled", "cuda", "cuda12", "cuda13", "tpu"}
    assert tried == {"none", *release.PROJECT["optional-dependencies"]} - set(release.FROM_A_CLONE)
