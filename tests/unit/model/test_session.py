"""A work item never shows the secret that opens its session."""

from handiwork.model.session import WorkItem


def test_a_work_item_hides_its_secret() -> None:
    item = WorkItem(
        id="work_1", environment_id="env_1", kind="session", session_id="sesn_1", secret="sk-ant-1"
    )
    for shown in (repr(item), str(item), f"{[item]}"):
        assert "sk-ant" not in shown
        assert "work_1" in shown
        assert "sesn_1" in shown
