"""Where metrics go: all logs get the same, and are closed whatever happens; a stand-in for W&B."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.extras import MissingExtra
from d3pm_jax.program.loop import metrics, sinks as logs
from tests import tiny

CONFIG = tiny.get_config()


class UserLog:
    """A logger of the user's own."""

    def __init__(self, error=None):
        self.rows = []
        self.closed = 0
        self.error = error

    def log(self, step, values):
        self.rows.append((step, dict(values)))

    def close(self):
        self.closed += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def service(monkeypatch):
    """A stand-in for the package: its runs by id, the options of `init`, and the rows of each run."""

    class Error(Exception):
        pass

    service = SimpleNamespace(calls=[], rows={}, codes=[], fails=set())

    def init(**options):
        service.calls.append(options)
        if "init" in service.fails:
            raise Error("No API key\nconfigured")
        rows = service.rows.setdefault(options["id"], {})

        def log(values, step, commit):
            if "log" in service.fails:
                raise Error("the service is gone")
            assert commit
            rows.setdefault(step, values)

        def finish(exit_code):
            service.codes.append(exit_code)

        return SimpleNamespace(log=log, finish=finish)

    module = ModuleType("wandb")
    vars(module).update(
        __spec__=ModuleSpec("wandb", None), Error=Error, init=init, Settings=lambda **x: ("settings", x)
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return service


def test_all_logs_get_the_same_and_are_closed(tmp_path, service):
    user_logs = UserLog(), UserLog()
    with logs.open_logs(CONFIG, tmp_path, 0, "digits", user_logs) as log:
        log(5, {"loss": 0.5, "kl": 0.25})
        log(10, {"loss": 0.25})
        assert len(metrics.read_metrics(tmp_path)) == 2  # a reader need not wait
    expected = [(5, {"loss": 0.5, "kl": 0.25}), (10, {"loss": 0.25})]
    assert [log_of_user.rows for log_of_user in user_logs] == [expected, expected]
    assert metrics.read_metrics(tmp_path) == [{"step": step, **values} for step, values in expected]
    assert list(service.rows.values()) == [dict(expected)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert ([log_of_user.closed for log_of_user in user_logs], service.codes) == ([1, 1], [0])


def test_logs_are_closed_where_training_or_one_of_them_fails(tmp_path, service):
    user_logs = UserLog(), UserLog(OSError("no room"))
    with pytest.raises(OSError, match="no room"), logs.open_logs(CONFIG, tmp_path, 0, "digits", user_logs):
        raise UserError("loss is nan")
    assert ([log_of_user.closed for log_of_user in user_logs], service.codes) == ([1, 1], [1])
    (tmp_path / metrics.METRICS).write_text("{\n")
    log_of_user = UserLog()
    with (
        pytest.raises(UserError, match="line 1 is damaged"),
        logs.open_logs(CONFIG, tmp_path, 0, None, [log_of_user]),
    ):
        pass
    assert log_of_user.closed == 1


def test_a_resumed_run_is_the_same_run_there_and_a_moved_folder_too(tmp_path, service):
    folder = tmp_path / "first"
    folder.mkdir()
    for after, steps in ((0, (5, 10)), (5, (10, 15))):
        with logs.open_logs(CONFIG, folder, after, "digits") as log:
            for step in steps:
                log(step, {"loss": 1.0 / step})
        folder = folder.rename(tmp_path / "second")
    first, second = service.calls
    assert first["id"] == second["id"] == (folder / logs.WANDB_ID).read_text()
    assert (
        list(service.rows[first["id"]])
        == [row["step"] for row in metrics.read_metrics(folder)]
        == [5, 10, 15]
    )
    assert (first["project"], first["name"], second["name"]) == ("digits", "first", "second")
    assert (first["resume"], first["dir"]) == ("allow", tmp_path / "first")
    assert first["config"] == config_io.flatten_config(CONFIG)
    assert first["config"]["process.beta.class"] == "Linear"
    json.dumps(first["config"])
    (folder / logs.WANDB_ID).write_text("../x\n")
    refused = pytest.raises(UserError, match=r"wandb_id.txt holds no id .*: delete it")
    with refused, logs.open_wandb(folder, "digits", {}):
        pass


def test_what_the_package_raises_is_one_line(tmp_path, service):
    service.fails.add("init")
    line = "Weights & Biases says 'No API key configured': correct that, or leave out --wandb"
    with pytest.raises(UserError, match=line), logs.open_wandb(tmp_path, "digits", {}):
        pass
    service.fails = {"log"}
    gone = pytest.raises(UserError, match="the service is gone")
    with gone, logs.open_wandb(tmp_path, "digits", {}) as log:
        log(1, {})


def test_without_the_package_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("d3pm_jax.extras.find_spec", lambda name: None)
    cure = r"--wandb needs wandb: pip install -e '\.\[wandb\]' in the clone"
    with pytest.raises(MissingExtra, match=cure), logs.open_wandb(tmp_path, "digits", {}):
        pass
    assert not list(tmp_path.iterdir())


def test_curves_are_read_by_what_tensorboard_reads(tmp_path):
    from tensorboardX.proto import event_pb2

    with logs.open_board(tmp_path / "board", 5) as log:
        log(6, {"loss": 0.5})
    (file,) = (tmp_path / "board").iterdir()
    content = file.read_bytes()
    events = []
    while content:
        size = int.from_bytes(content[:8], "little")
        events.append(event_pb2.Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    assert "tfevents" in file.name
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].step, events[1].session_log.status) == (5, event_pb2.SessionLog.START)
    assert (events[2].step, events[2].summary.value[0].tag) == (6, "loss")
    assert events[2].summary.value[0].simple_value == 0.5
