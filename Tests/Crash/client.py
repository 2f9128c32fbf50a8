"""A client of the crash test: a process that lives through all rounds and keeps a record."""

import multiprocessing
import traceback

END_SECONDS = 30


class Stage:
    """What the processes share: the number of the round, and the sign to stop."""

    def __init__(self):
        self._round = multiprocessing.Value("i", 0)
        self.stop = multiprocessing.Event()

    @property
    def round(self) -> int:
        return self._round.value

    def next_round(self) -> None:
        """Called while the broker is down: what connects from now on belongs to the new round."""
        self._round.value += 1

    def pause(self, seconds: float = 0.02) -> None:
        """A moment between two attempts, shorter when it is time to stop."""
        self.stop.wait(seconds)


class Client:
    """Runs `work(stage)` in a process of its own."""

    def __init__(self, work, stage: Stage):
        self._ours, theirs = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(target=self._run, args=(work, stage, theirs))
        self.process.start()
        theirs.close()

    @staticmethod
    def _run(work, stage, pipe) -> None:
        try:
            record = work(stage)
        except BaseException:
            record = traceback.format_exc()
        pipe.send(record)

    def check(self) -> None:
        """Raises when the client has ended before its time."""
        if self._ours.poll():
            raise AssertionError(f"a client failed:\n{self._ours.recv()}")
        assert self.process.is_alive(), f"a client ended with status {self.process.exitcode}"

    def record(self):
        """What the client returns after the sign to stop."""
        assert self._ours.poll(END_SECONDS), "a client does not end"
        record = self._ours.recv()
        assert not isinstance(record, str), f"a client failed:\n{record}"
        self.process.join(END_SECONDS)
        return record

    def end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
