from civilqa.model.evaluation import describe_verdict


def test_the_verdict_has_the_scores_that_were_named_in_advance_and_the_report():
    base = {"chrf": {"mean": 1.0}, "ends_cleanly": {"verdict": "better"}, "contrast_accuracy": {"verdict": "worse"}}
    assert describe_verdict({"difference": {"base": base}}).splitlines() == [
        "verdict: contrast_accuracy worse, ends_cleanly better",
        "report: data/predictions/report.html",
    ]
    assert describe_verdict({"difference": {}}).startswith("verdict: none: nothing was compared\n")
