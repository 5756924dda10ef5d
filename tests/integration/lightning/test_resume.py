from __future__ import annotations
from pathlib import Path
def test_x(lab, tmp_path: Path) -> None:
    import time
    for n in "abc":
        t=time.time()
        code = lab.run(lab.spec(), tmp_path/n)
        print((tmp_path/n/"logs.txt").read_text()[-3000:])
        print(lab.status(tmp_path/n)); print(lab.metrics(tmp_path/n)); print(time.time()-t)
    print(list((tmp_path/"b").iterdir()), lab.adapter(tmp_path/"a"), lab.adapter(tmp_path/"b"))
    assert code==0
