"""What the pipeline knows to hold captions against: the CLIP model of the scores, and what the demo drew."""

from captioner.agreement import TextEncoder
from captioner.figures import Yardsticks
from popfactory.demo_truth import truth_of
from spine.config import load_config
from spine.manifest import find_manifest
from spine.progress import Progress
from spine.run import Run


def yardsticks_of(run: Run, progress: Progress) -> Yardsticks:
    """The yardsticks of a run; what is missing is said.

    Raises:
        ConfigError: popfactory.toml is wrong.
    """
    from index_builder.encoding.clip import ClipEncoder, clip_name

    config = load_config(run.config)
    scores = find_manifest(run.scores)
    name, truth = clip_name(config.clip), truth_of(run)
    if scores is None or scores.facts.get("model") != name:
        by = "there are no scores" if scores is None else f"the scores are by {scores.facts.get('model')}"
        progress.say(
            f"the captions' agreement with their pictures is not measured: {by}, [clip] names {name}"
        )
        return Yardsticks(None, truth)

    def load() -> TextEncoder:
        return ClipEncoder.load(config.clip)

    return Yardsticks(load, truth)
