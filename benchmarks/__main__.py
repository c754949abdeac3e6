"""Run every benchmark in turn."""

from benchmarks import shared, swap

if __name__ == "__main__":
    swap.main()
    shared.main()
