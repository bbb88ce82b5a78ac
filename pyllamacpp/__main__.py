"""`python -m pyllamacpp` is the `pyllamacpp` command."""

from .cli import main

if __name__ == "__main__":
    main()
