"""What the pipeline raises when a person has to do something.

PipelineError            a stage cannot go on; the message says where, what was found and what to do
├── ParameterError       params.yaml
├── RecordError          the dataset or one of its rows
├── TemplateError        a chat template and a tokenizer that do not fit together
├── ModelError           a base model or an adapter
├── QuestionError        a question that cannot be asked; in Korean, for the one who asked it
└── MemoryShortage       training does not fit the memory there is
"""


class PipelineError(Exception):
    """A stage cannot go on; its text is shown to the user as it stands, without a traceback."""


class ParameterError(PipelineError):
    """params.yaml holds something that no stage can run with."""


class RecordError(PipelineError):
    """The dataset, or a row of it, cannot be used."""


class TemplateError(PipelineError):
    """A chat template and a tokenizer do not fit together."""


class ModelError(PipelineError):
    """A base model or an adapter cannot be loaded or does not fit."""


class QuestionError(PipelineError):
    """A question cannot be asked: it is empty, too long, or no text."""


class MemoryShortage(PipelineError):
    """Training ran out of memory, or would."""
