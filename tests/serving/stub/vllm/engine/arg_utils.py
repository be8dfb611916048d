from types import SimpleNamespace


class EngineArgs(SimpleNamespace):
    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--model")
        parser.add_argument("--max-num-seqs", type=int)
        return parser

    @classmethod
    def from_cli_args(cls, args):
        return cls(**vars(args))
