"""What the pipeline raises when a person has to do something."""


class PipelineError(Exception):
    """A stage cannot go on; its text is shown without a traceback: where, what was found, what to do."""


class ParameterError(PipelineError):
    """params.yaml holds something that no stage can run with."""


class RecordError(PipelineError):
    """The dataset, or a row of it, cannot be used."""


class TemplateError(PipelineError):
    """A chat template and a tokenizer do not fit together."""


class ModelError(PipelineError):
    """A base model or an adapter cannot be loaded or does not fit."""


class EngineError(PipelineError):
    """The server that chat.engine_url names is not there, or does not do what is asked of it. In Korean."""


class QuestionError(PipelineError):
    """A question cannot be asked: it is empty, too long, or no text. In Korean, for the one who asked it."""


class MemoryShortage(PipelineError):
    """Training ran out of memory, or would."""
