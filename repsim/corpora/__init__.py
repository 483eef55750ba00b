"""Text in: parallel corpora, training text, tokenizers and token shards."""

from repsim._lazy import lazily

#: Public name -> where it lives.
_PUBLIC = {
    "BuiltinCorpus": "repsim.corpora.builtin",
    "CORPORA": "repsim.corpora.builtin",
    "DataOrder": "repsim.corpora.data_order",
    "Document": "repsim.corpora.documents",
    "READERS": "repsim.corpora.readers",
    "TokenShards": "repsim.corpora.shards",
    "Tokenizer": "repsim.corpora.tokenizers",
    "TrainingText": "repsim.corpora.documents",
    "WindowSource": "repsim.corpora.shards",
    "builtin_parallel": "repsim.corpora.builtin_training",
    "list_corpora": "repsim.corpora.builtin",
    "load_corpus": "repsim.corpora.parallel",
    "load_tokenizer": "repsim.corpora.tokenizers",
    "load_training_text": "repsim.corpora.training_text",
    "save_tokenizer": "repsim.corpora.tokenizers",
    "token_byte_lengths": "repsim.corpora.tokenizers",
    "tokenizer_hash": "repsim.corpora.tokenizers",
    "train_tokenizer": "repsim.corpora.tokenizers",
    "unseen_rows": "repsim.corpora.overlap",
    "write_shards": "repsim.corpora.shards",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
