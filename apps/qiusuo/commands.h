/* The commands of the program: one line and one file (cmd_NAME.c) each. */
#ifndef QSA_COMMANDS_H
#define QSA_COMMANDS_H

/* X(function suffix, name as typed, summary for --help); in the order --help shows them */
#define QSA_COMMANDS(X)

#endif
