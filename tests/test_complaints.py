"""What users of other trainers complain about, a row each, and the tests that keep it from happening here.

Small tests that have no better home stand below.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from layernet.cli.main import main
from layernet.config.experiment import load_config_text
from layernet.errors import ConfigError
from tests.config.test_bad_configs import GOOD

ROOT = Path(__file__).parents[1]

ROWS: dict[str, list[str]] = {
    "1e-3 is read as text": [
        "config/test_marks.py::test_numbers_and_words",
        "config/test_overrides.py::test_an_override_takes_effect",
        "test_complaints.py::test_floats_in_every_spelling",
    ],
    "on, off, no, yes, 1:30, 0777 become something else": [
        "config/test_marks.py::test_everything_else_is_text",
        "config/test_marks.py::test_keys_are_text",
        "test_complaints.py::test_a_layer_may_be_called_no",
    ],
    "a key given twice silently wins": [
        "config/test_marks.py::test_duplicates_do_not_hide_each_other",
        "config/test_bad_configs.py::test_a_mistake_is_one_problem_at_its_place",
        "test_errors.py::test_a_problem_as_a_block",
    ],
    "typos are ignored or found late": [
        "config/test_sweeps.py::test_typos_are_caught_and_answered_rightly",
        "test_complaints.py::test_a_typo_on_the_command_line",
    ],
    "raw tracebacks for user errors": [
        "test_errors.py::test_a_problem_as_a_block",
        "cli/test_cli.py::test_mistakes_get_one_message_and_a_code",
        "cli/test_user_errors.py::test_train_says_which_part_failed_and_where",
        "config/test_sweeps.py::test_made_up_configs_are_answered",
        "test_complaints.py::test_a_mistake_is_a_block_without_a_traceback_and_debug_shows_it",
    ],
    "only the first error is shown": [
        "config/test_bad_configs.py::test_all_mistakes_come_at_once_in_the_order_of_the_text",
        "config/test_bad_configs.py::test_checks_between_parts_run_though_others_are_broken",
        "config/test_overrides.py::test_all_overrides_that_lead_nowhere_come_at_once",
    ],
    "a shape mismatch without the layer": [
        "config/test_shape_errors.py::test_both_layers_both_shapes_both_lines",
        "test_errors.py::test_the_layers_of_a_shape_error_are_both_shown",
    ],
    "epochs cannot be extended on resume, overrides are ignored": [
        "train/test_resume.py::test_a_run_goes_on_for_longer_as_if_it_had_been_meant_to",
        "train/test_resume.py::test_what_a_run_cannot_change_is_refused_by_name",
    ],
    "metrics.csv is wiped or doubled on resume": [
        "train/test_resume.py::test_an_interrupted_run_resumes_to_the_same_bits",
        "train/test_durable.py::test_a_run_that_ended_before_its_first_checkpoint_begins_anew",
        "train/test_callbacks.py::test_json_lines_are_the_rows_also_of_a_run_that_was_killed",
    ],
    "resume differs silently": [
        "train/test_resume.py::test_an_interrupted_run_resumes_to_the_same_bits",
        "train/test_resume.py::test_averages_are_evaluated_and_saved_and_resume_to_the_same_bits",
        "train/test_resume.py::test_a_plateau_lowers_and_resumes_to_the_same_bits",
        "train/test_all_together.py::test_all_together_resumes_to_the_same_bits",
        "train/test_durable.py::test_kills_change_nothing",
    ],
    "trackers are switched on unasked": ["test_complaints.py::test_training_opens_no_socket"],
    "progress bars fill log files": [
        "cli/test_plain.py::test_files_and_pipes_get_plain_lines",
        "cli/test_plain.py::test_a_terminal_has_a_bar_and_colours_unless_they_are_not_wanted",
        "test_errors.py::test_colours_are_for_terminals_that_want_them",
    ],
    "run directories are overwritten": [
        "train/test_rundir.py::test_twenty_starts_at_once_get_twenty_directories",
        "train/test_rundir.py::test_numbers_go_up_and_names_do_not_mix",
        "cli/test_cli.py::test_name_and_second_run",
        "train/test_training.py::test_what_a_run_says",
    ],
    "the config file exists already": ["cli/test_cli.py::test_name_and_second_run"],
    "class names are lost or reordered at predict time": [
        "cli/test_predict.py::test_classes_are_those_of_the_checkpoint_whatever_the_folder_holds_now",
        "cli/test_predict.py::test_a_folder_as_csv",
    ],
    "a full disk is found after hours": [
        "train/test_durable.py::test_a_disk_without_room_is_refused_before_training",
        "train/test_durable.py::test_what_checkpoints_take_is_known_before_there_is_one",
        "train/test_durable.py::test_a_run_that_is_refused_leaves_nothing",
        "cli/test_trying_out.py::test_a_dry_run_looks_at_the_disk_that_runs_would_be_made_on",
    ],
    "NaN is ignored or becomes best": [
        "train/test_numerics.py::test_it_stops_in_the_step_and_names_the_place",
        "train/test_numerics.py::test_weights_that_overflow_are_not_saved",
        "train/test_numerics.py::test_nan_is_never_best",
    ],
    "exit code 0 after a signal": [
        "cli/test_cli.py::test_a_signal_saves_and_sets_the_exit_code",
        "train/test_durable.py::test_a_signal_in_an_evaluation_is_answered_before_its_next_batch",
        "train/test_durable.py::test_the_first_signal_saves_and_the_second_ends_at_once",
    ],
    "Ctrl-C saves nothing": [
        "cli/test_cli.py::test_a_signal_saves_and_sets_the_exit_code",
        "train/test_durable.py::test_the_first_signal_saves_and_the_second_ends_at_once",
        "train/test_resume.py::test_an_interrupted_run_says_how_to_go_on",
    ],
    "there is no dry run": [
        "cli/test_trying_out.py::test_a_dry_run_does_all_but_train_and_writes_nothing",
        "cli/test_trying_out.py::test_a_dry_run_finds_what_would_stop_a_run",
        "cli/test_cli.py::test_validate",
    ],
    "the install drags the world": ["test_complaints.py::test_the_core_needs_few_packages"],
}


@cache
def names_in(file: str) -> set[str]:
    """The test functions of a file under tests/."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_table_is_whole() -> None:
    assert len(ROWS) == 21


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_tests(row: str) -> None:
    assert ROWS[row]
    for test in ROWS[row]:
        file, _, name = test.partition("::")
        assert name in names_in(file), test


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", ".001", "10e-4", "1.0e-3", "1e-03"])
def test_floats_in_every_spelling(text: str) -> None:
    for config in (
        load_config_text(GOOD.replace("lr: 0.1", f"lr: {text}")),
        load_config_text(GOOD, overrides=[f"optimizer.lr={text}"]),
        load_config_text(GOOD, overrides=[f"optimizer={{type: SGD, lr: {text}}}"]),
    ):
        assert config.optimizer.lr == 1e-3
        assert isinstance(config.optimizer.lr, float)


@pytest.mark.parametrize("name", ["no", "off", "y", "null", "1_000", "0777", "2001-01-01"])
def test_a_layer_may_be_called_no(name: str) -> None:
    if name == "null":  # the one word that stays what it is elsewhere
        assert load_config_text(GOOD.replace("name: head, ", "name: null, ").replace("head.*", "linear_1.*"))
        return
    config = load_config_text(GOOD.replace("name: head", f"name: {name}").replace("head.*", f"{name}.*"))
    assert config.net.layers[-1].name == name
    assert load_config_text(config.dump()).net.layers[-1].name == name


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "y", "n", "True", "FALSE", "1", "0"])
def test_only_true_and_false_are_booleans(word: str) -> None:
    with pytest.raises(ConfigError, match="expected true or false") as caught:
        load_config_text(GOOD.replace("batch_size: 16", f"batch_size: 16\n  shuffle: {word}"))
    (problem,) = caught.value.problems
    assert word in "10" or problem.hint in ("write true", "write false")


def test_a_typo_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(GOOD.replace("momentum", "momentun"))
    assert main(["validate", str(file)]) == 2
    err = capsys.readouterr().err
    assert re.match(rf"error: {re.escape(str(file))}:\d+:\d+: optimizer.momentun: unknown key 'momentun'\n", err)
    assert "= help: did you mean 'momentum'?" in err


def test_a_mistake_is_a_block_without_a_traceback_and_debug_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(GOOD.replace("lr: 0.1", "lr: fast"))
    command = [sys.executable, "-m", "layernet", "train", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    line = next(number for number, text in enumerate(file.read_text().splitlines(), 1) if "lr: fast" in text)
    place = f"{file}:{line}:{file.read_text().splitlines()[line - 1].index('fast') + 1}"
    assert done.returncode == 2
    assert done.stdout == ""
    head, _, shown, under = done.stderr.splitlines()
    assert head == f"error: {place}: optimizer.lr: expected a number, got 'fast'"
    assert under.index("^^^^") == shown.index("fast")
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert "Traceback" in debug.stderr


def test_training_opens_no_socket(tmp_path: Path) -> None:
    """Nothing but the config's own data could: no tracker, no telemetry, no look for a newer version."""
    file = tmp_path / "c.yaml"
    file.write_text(GOOD)
    argv = ["train", str(file), "--runs", str(tmp_path), "--kernels", "numpy"]
    code = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event.startswith(('socket.', 'urllib.', 'webbrowser.', 'ftplib.', 'http.')):\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
        "from layernet.cli.main import main\n"
        f"raise SystemExit(main({argv!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_core_needs_few_packages() -> None:
    import tomllib

    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.match(r"[\w-]+", each)[0].lower() for each in needed}  # type: ignore[index]
    assert names <= {"numpy", "pyyaml", "pydantic", "rich", "pillow", "threadpoolctl"}
