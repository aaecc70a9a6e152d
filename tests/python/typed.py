"""How a program uses the package, for a type checker (tools/test-python.sh); never run."""
from typing import List, Optional, Tuple

import fastvlm


def answers(path: str, data: bytes) -> List[str]:
    model = fastvlm.Model("FastVLM-0.5B", vision="int8", threads=2)
    answer: fastvlm.Answer = model.ask(path, "What is this?", max_tokens=20, temperature=0.5, stop=["."])
    tokens: List[int] = answer.tokens
    logprobs: Optional[List[float]] = model.ask(data, logprobs=1).logprobs
    features: fastvlm.Features = model.encode(path)
    shape: Tuple[int, int] = features.shape
    with model.session(system="Be brief.") as s:
        piece: fastvlm.Piece
        for piece in s.stream("And this?", [path, features]):
            print(piece.token, piece, end="")
        print(s.stats.decode_ms, tokens, logprobs, shape)
    return [str(a) for a in model.caption_batch([path, data], "What is this?", errors="return")]
