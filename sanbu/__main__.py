"""`python -m sanbu` is `sanbu`."""

from sanbu.cli.main import main

if __name__ == "__main__":
    main()
