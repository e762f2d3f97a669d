from slotlib.cli import main

main()
