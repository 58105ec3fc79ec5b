"""How many cores there really are."""

import os

import pytest

from albert_tf2.data import workers


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 16 cores; takes the groups' limits as files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))

    def cores(groups, **limits):
        (tmp_path / "cgroup").write_text(groups)
        for name, content in limits.items():
            path = tmp_path / "mounted" / name.replace("__", "/")
            path = path.with_name(path.name.replace("_max", ".max"))
            path = path.with_name(path.name.replace("cpu_cfs", "cpu.cfs"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return workers.available_cores(
            str(tmp_path / "cgroup"), str(tmp_path / "mounted")
        )

    return cores


def test_without_limits_it_is_what_the_process_may_run_on(machine):
    assert machine("0::/\n") == 16
    assert machine("0::/\n", cpu_max="max 100000\n") == 16
    assert workers.available_cores("/absent", "/absent") == 16


def test_a_container_has_what_its_quota_allows(machine):
    assert machine("0::/\n", cpu_max="200000 100000\n") == 2
    assert machine("0::/\n", cpu_max="250000 100000\n") == 3
    assert machine("0::/\n", cpu_max="10000 100000\n") == 1
    assert machine("0::/\n", cpu_max="9900000 100000\n") == 16


def test_the_parents_of_a_group_limit_it_too(machine):
    groups = "0::/kubepods/pod7/c1\n"
    assert machine(groups, kubepods__pod7__cpu_max="400000 100000\n") == 4
    assert machine(groups, kubepods__pod7__c1__cpu_max="max 100000\n") == 4


def test_the_first_version_of_control_groups(machine):
    groups = "12:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n1:name=systemd:/\n"
    folder = "cpu,cpuacct__docker__a__cpu_cfs_"
    period = {f"{folder}period_us": "100000\n"}
    assert machine(groups, **{f"{folder}quota_us": "-1\n"}, **period) == 16
    assert machine(groups, **{f"{folder}quota_us": "300000\n"}) == 3


def test_it_is_the_default_of_the_command(monkeypatch, capsys):
    from albert_tf2.data import build_pretraining_data

    monkeypatch.setattr(workers, "available_cores", lambda: 7)
    with pytest.raises(SystemExit):
        build_pretraining_data.main(["--help"])
    assert "default: 7)" in capsys.readouterr().out
