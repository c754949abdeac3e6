"""Run every benchmark in turn."""

from benchmarks import shared, storage, swap

if __name__ == "__main__":
    swap.main()
    shared.main()
    storage.main()
