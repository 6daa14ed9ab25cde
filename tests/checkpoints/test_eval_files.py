"""Where evaluation files lie, what their names say, and both layouts of lm-eval."""

import doctest
import json
import math
import shutil
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from eval_files import today, write_suite

from headspec.checkpoints import chance_levels, eval_names, eval_sources
from headspec.checkpoints.eval_names import identify, model_arguments, plain_name
from headspec.checkpoints.eval_sources import resolve_github
from headspec.checkpoints.evals import load_lm_eval, load_pythia_evals
from headspec.errors import HubUnreachableError, InputError
from headspec.results import capability_rows


@pytest.fixture
def folder(tmp_path):
    return write_suite(tmp_path)


def test_any_level_list_or_archive(folder, tmp_path_factory):
    whole = load_pythia_evals(folder)
    numbers = whole.drop(columns="file")
    assert len(load_pythia_evals(folder / "pythia-70m")) == 5 * 4
    zero = load_pythia_evals(str(folder / "pythia-70m" / "zero-shot"))
    assert set(zero["model"]) == {"pythia-70m"}
    one = folder / "pythia-70m" / "five-shot" / "70m-5shot_step1000.json"
    assert load_pythia_evals(one)["shots"].tolist() == [5] * 4
    listed = [folder / "pythia-70m", folder / "pythia-160m-deduped"]
    assert load_pythia_evals(listed).drop(columns="file").equals(numbers)
    place = tmp_path_factory.mktemp("archives")
    for kind in ("zip", "gztar"):
        path = shutil.make_archive(str(place / "pythia-main"), kind, folder.parent, folder.name)
        assert load_pythia_evals(path).drop(columns="file").equals(numbers)
    (place / "broken.zip").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(InputError, match="archive"):
        load_pythia_evals(place / "broken.zip")
    with zipfile.ZipFile(place / "empty.zip", "w") as empty:
        empty.writestr("a.txt", "b")
    with pytest.raises(InputError, match="none"):
        load_pythia_evals(place / "empty.zip")
    with pytest.raises(InputError, match="does not exist"):
        load_pythia_evals(place / "nothing")
    with pytest.raises(InputError, match="empty list"):
        load_pythia_evals([])


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(folder):
    with tarfile.open(folder / "evals.tar.gz", "w:gz") as archive:
        archive.add(folder / "pythia-70m", "repo-main/evals/pythia-70m")
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_urls(server, folder, monkeypatch):
    frame = load_pythia_evals(f"{server}/pythia-70m/five-shot/70m-5shot_step1000.json")
    assert frame["value"].tolist() == [0.6, 0.3, 0.6, 0.3]
    whole = load_pythia_evals(f"{server}/evals.tar.gz")
    here = load_pythia_evals(folder / "pythia-70m")
    assert whole.drop(columns="file").equals(here.drop(columns="file"))
    with pytest.raises(HubUnreachableError, match="404"):
        load_pythia_evals(f"{server}/nothing_step1.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="OFFLINE"):
        load_pythia_evals(f"{server}/evals.tar.gz")


def test_pages_of_github_lead_to_their_files():
    page = "https://github.com/EleutherAI/pythia"
    assert resolve_github(page) == ("https://codeload.github.com/EleutherAI/pythia/zip/HEAD", "")
    file, inside = resolve_github(f"{page}/blob/main/evals/70m_step0.json")
    assert file == "https://raw.githubusercontent.com/EleutherAI/pythia/main/evals/70m_step0.json"
    assert inside == ""
    assert resolve_github("https://example.org/a.zip") == ("https://example.org/a.zip", "")
    wanted = eval_sources._wanted
    assert wanted("pythia-main/evals/a/70m_step0.json", "*step*.json", "evals/a")
    assert not wanted("pythia-main/evals/ab/70m_step0.json", "*step*.json", "evals/a")


@pytest.mark.parametrize(
    ("file", "pretrained", "expected"),
    [
        ("pythia-160m/five-shot/160m-5shot_step103000.json", "160m", ("160m", 103000, 5)),
        (
            "pythia-70m-deduped/zero-shot/70m-deduped_step2.json",
            "70m-deduped",
            ("70m-deduped", 2, 0),
        ),
        ("70m-deduped-5shot_step3000.json", "", ("70m-deduped", 3000, 5)),
        (
            "pythia-1.4b-deduped/baseline/baseline-1.4b-deduped_step116000.json",
            "1.4b-deduped",
            ("1.4b-deduped", 116000, None),
        ),
        (
            "pythia-160m-0.5MtokBS/160m-0.5MtokBS_step12000.json",
            "",
            ("160m-0.5MtokBS", 12000, None),
        ),
    ],
)
def test_names_as_published(file, pretrained, expected):
    config = {}
    if pretrained:
        config["model_args"] = f"pretrained=EleutherAI/pythia-v1.1-{pretrained}"
    found = identify(file, config, of_pythia=True)
    assert (found.model, found.step, found.shots) == (f"pythia-{expected[0]}", *expected[1:])
    assert found.contradictions == ()


def test_an_intervention_in_the_folder_of_its_model():
    args = "pretrained=EleutherAI/intervention-pythia-v1.1-1.4b-deduped-long,revision=step115000"
    name = "pythia-1.4b-deduped/intervention/intervention-1.4b-deduped-long_step115000.json"
    found = identify(name, {"model_args": args}, of_pythia=True)
    assert found.model == "intervention-pythia-1.4b-deduped-long"
    assert found.contradictions == ()


def test_model_arguments_in_three_notations():
    expected = {"pretrained": "a/b", "revision": "step8"}
    for given in ("pretrained=a/b,revision=step8", json.dumps(expected), expected):
        assert model_arguments({"model_args": given}) == expected
    assert model_arguments({}) == {}
    assert model_arguments({"model_args": "{broken"}) == {}
    assert plain_name("EleutherAI/pythia-v1.1-70m") == "pythia-70m"


def test_results_of_today(tmp_path):
    folder = tmp_path / "EleutherAI__pythia-70m"
    folder.mkdir()
    for step, kind in ((1000, str), (2000, dict)):
        args = {
            "pretrained": "EleutherAI/pythia-70m",
            "revision": f"step{step}",
            "dtype": "float32",
        }
        written = args if kind is dict else ",".join(f"{k}={v}" for k, v in args.items())
        path = folder / f"results_2025-11-0{step // 1000}T10-00-00.123456.json"
        data = today(args=written)
        data["results"]["piqa"]["acc,none"] = 0.6 + step / 1e5
        path.write_text(json.dumps(data))
    (folder / "samples_piqa_2025-11-01T10-00-00.jsonl").write_text("{}")
    frame = load_lm_eval(tmp_path)
    assert sorted(set(frame["metric"])) == [
        "gsm8k.exact_match,flexible-extract",
        "gsm8k.exact_match,strict-match",
        "lambada_openai.acc",
        "lambada_openai.perplexity",
        "mmlu.acc",
        "piqa.acc",
        "piqa.acc_norm",
    ]
    assert sorted(set(frame["step"])) == [1000, 2000]
    assert set(frame["model"]) == {"pythia-70m"}
    row = frame.query("metric == 'piqa.acc' and step == 2000").iloc[0]
    assert (row["value"], row["se"], row["n"], row["version"]) == (0.62, 0.011, 1838, "1.0")
    assert frame.loc[frame["task"] == "gsm8k", "shots"].eq(3).all()
    missing = frame.query("metric == 'gsm8k.exact_match,flexible-extract'")["se"]
    assert missing.isna().all()
    assert math.isnan(
        frame.query("task == 'lambada_openai' and measure != 'acc'")["chance"].iloc[0]
    )


def test_groups_have_no_shots(tmp_path):
    written = today(args="pretrained=EleutherAI/pythia-70m,revision=step8")
    written["n-shot"] |= {"mmlu": "N/A", "gsm8k": "5"}
    written["results"]["piqa"]["acc_stderr,none"] = -1  # of a metric without one
    path = tmp_path / "results_2025-11-01T10-00-00.json"
    path.write_text(json.dumps(written))
    frame = load_lm_eval(path).set_index("metric")
    assert frame["shots"].isna()["mmlu.acc"]
    assert math.isnan(frame["se"]["piqa.acc"])
    assert frame["shots"]["gsm8k.exact_match,strict-match"] == 5


def test_the_step_may_stand_in_the_path_or_be_given(tmp_path):
    tasks = {"piqa": {"acc,none": 0.6, "acc_stderr,none": 0.01}}
    path = tmp_path / "results_2025-11-01T10-00-00.json"
    path.write_text(json.dumps(today(args="pretrained=/runs/mine/checkpoint-500", tasks=tasks)))
    frame = load_lm_eval(path)
    assert (frame["model"][0], frame["step"][0]) == ("mine", 500)
    path.write_text(json.dumps(today(args="pretrained=me/mine", tasks=tasks)))
    with pytest.raises(InputError, match="says the step"):
        load_lm_eval(path)
    assert load_lm_eval(path, step=7)["step"].tolist() == [7]
    inside = tmp_path / "step9" / "results.json"
    inside.parent.mkdir()
    inside.write_text(json.dumps(today(args="", tasks=tasks)))
    with pytest.raises(InputError, match="says the model"):
        load_lm_eval(inside)
    frame = load_lm_eval(inside, model="mine")
    assert (frame["model"][0], frame["step"][0]) == ("mine", 9)
    other = today(args="pretrained=me/mine,revision=step8", tasks=tasks)
    inside.write_text(json.dumps(other))
    with pytest.raises(InputError, match="step 9 by its folder, 8 by model_args"):
        load_lm_eval(inside)


def test_the_folder_that_lm_eval_was_told_may_say_the_step(tmp_path):
    """It writes into a folder of the model's name inside that."""
    tasks = {"piqa": {"acc,none": 0.6}}
    inside = tmp_path / "step1000" / "__models__my" / "results_2025-11-01T10-00-00.json"
    inside.parent.mkdir(parents=True)
    inside.write_text(json.dumps(today(args="pretrained=/models/my", tasks=tasks)))
    frame = load_lm_eval(tmp_path)
    assert (frame["model"][0], frame["step"][0]) == ("my", 1000)
    other = today(args="pretrained=/models/my,revision=step8", tasks=tasks)
    inside.write_text(json.dumps(other))
    with pytest.raises(InputError, match="step 1000 by the folder above, 8 by model_args"):
        load_lm_eval(tmp_path)


def test_other_json_in_the_folder_is_not_looked_at(tmp_path):
    tasks = {"piqa": {"acc,none": 0.6}}
    args = "pretrained=me/mine,revision=step8"
    (tmp_path / "results_1.json").write_text(json.dumps(today(args=args, tasks=tasks)))
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    (tmp_path / "samples_piqa.json").write_text('[{"doc_id": 0}]')
    assert load_lm_eval(tmp_path)["step"].tolist() == [8]
    with pytest.raises(InputError, match='no "results"'):
        load_lm_eval(tmp_path / "config.json")
    (tmp_path / "results_2.json").write_text("{}")
    with pytest.raises(InputError, match=r'no "results".*results_2'):
        load_lm_eval(tmp_path)


def test_the_old_layout_is_read_by_the_general_loader_too(folder):
    old = load_pythia_evals(folder).drop(columns="file")
    assert load_lm_eval(folder).drop(columns="file").equals(old)


@pytest.mark.parametrize("module", [chance_levels, eval_names, eval_sources, capability_rows])
def test_docstrings(module):
    assert doctest.testmod(module).failed == 0
