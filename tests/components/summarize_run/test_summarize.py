import json

import pytest
from google.cloud import aiplatform_v1 as v1

from components.common.errors import ConfigError
from components.common.vertex import ENDPOINT_VARIABLE
from components.summarize_run.summarize import summarize
from tests.fakes.vertex import PARENT, serve_vertex

NAME = f"{PARENT}/pipelineJobs/flowers-1"


@pytest.fixture
def fake(monkeypatch):
    with serve_vertex() as (state, address):
        monkeypatch.setenv(ENDPOINT_VARIABLE, address)
        job = v1.PipelineJob(name=NAME)
        states = v1.PipelineTaskDetail.State
        for task, end, message in (
            ("condition-1", states.FAILED, "a task of it failed"),
            ("train-model", states.SUCCEEDED, ""),
            ("deploy-model", states.FAILED, "<b>no machine</b>"),
        ):
            job.job_detail.task_details.append(
                v1.PipelineTaskDetail(
                    task_name=task,
                    state=end,
                    start_time="2026-11-24T09:00:00Z",
                    end_time="2026-11-24T09:01:30Z",
                    error={"message": message},
                )
            )
        state.jobs["flowers-1"] = v1.PipelineJob.pb(job)
        yield state


def test_writes_every_task_and_the_error(fake, tmp_path):
    summarize(NAME, "FAILED", "no machine", tmp_path / "summary.json", tmp_path / "report.html")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["state"], summary["error"]) == ("FAILED", "no machine")
    tasks = {task["name"]: task for task in summary["tasks"]}
    assert list(tasks) == ["train-model", "deploy-model"]
    assert tasks["train-model"] == {
        "name": "train-model",
        "state": "SUCCEEDED",
        "seconds": 90.0,
        "error": "",
    }
    assert tasks["deploy-model"]["error"] == "<b>no machine</b>"
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;no machine&lt;/b&gt;" in page
    assert "train-model" in page


def test_name_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected projects/P/locations/R/pipelineJobs/ID"):
        summarize("flowers-1", "FAILED", "", tmp_path / "a", tmp_path / "b")
    assert not list(tmp_path.iterdir())
