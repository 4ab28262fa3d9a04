#include "plan.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"

enum {
  OPTIONS_MAX = 256,
  LINE_BYTES = 128,
  /* Above all characters, so that a long option's value is none of them. */
  FIRST_VALUE = 256,
};

/* What an option means to us, as the table has it. */
enum role { ROLE_NONE = '.', ROLE_STAY = 's', ROLE_KEEP_FD = 'd', ROLE_OPEN = 'o', ROLE_JOIN = 'j', ROLE_LINK = 'n' };

/* Rows are long names; all names of one option have the same number. */
struct table {
  /* A program for namespaces: its operands are a command, which keeps it in the foreground, or a process to join. */
  bool of_namespaces;
  int rows;
  struct option longs[OPTIONS_MAX + 1];
  char shorts[2 * OPTIONS_MAX + 3];
  char role_of[OPTIONS_MAX];
  int number_of_short[FIRST_VALUE];
};

/* A line: NUMBER TAKES-VALUE ROLE SHORT NAME. */
static bool add_row(struct table *table, const char *line) {
  int number = 0;
  int takes_value = 0;
  char role = ROLE_NONE;
  char letter = '-';
  char name[LINE_BYTES];
  if (table->rows == OPTIONS_MAX || sscanf(line, "%d %d %c %c %127s", &number, &takes_value, &role, &letter, name) != 5) return false;
  if (number < 0 || number >= OPTIONS_MAX) return false;
  struct option *row = &table->longs[table->rows];
  row->name = strdup(name);
  if (row->name == NULL) return false;
  row->has_arg = takes_value != 0 ? required_argument : no_argument;
  row->val = FIRST_VALUE + number;
  table->rows++;
  table->role_of[number] = role;
  if (letter == '-' || strchr(table->shorts, letter) != NULL) return true;
  table->number_of_short[(unsigned char)letter] = number;
  size_t used = strlen(table->shorts);
  snprintf(table->shorts + used, sizeof table->shorts - used, "%c%s", letter, takes_value != 0 ? ":" : "");
  return true;
}

static bool read_table(const char *own, struct table *table) {
  static char path[OWN_PATH_BYTES + 16];
  snprintf(path, sizeof path, "%s.options", own);
  FILE *file = fopen(path, "re");
  if (file == NULL) return false;
  char line[LINE_BYTES];
  bool good = fgets(line, sizeof line, file) != NULL;
  table->of_namespaces = good && strcmp(line, "namespaces\n") == 0;
  if (table->of_namespaces) strcpy(table->shorts, "+");
  while (good && fgets(line, sizeof line, file) != NULL) good = add_row(table, line);
  fclose(file);
  return good && table->rows > 0;
}

static bool is_number(const char *text) {
  return text[0] != '\0' && strspn(text, "0123456789") == strlen(text);
}

/*
 * The descriptor in QEMU's text for a link: the number behind fd, addr.str or local.str, as a list or as JSON has it; -1: none. Paths may look like it,
 * which keeps a descriptor open that nobody asked for and does no other harm.
 */
static int link_descriptor(const char *text) {
  static const char *const keys[] = {",fd=", ".str=", "\"fd\"", "\"str\""};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const char *found = strstr(text, keys[i]);
    if (found == NULL) continue;
    const char *value = found + strlen(keys[i]);
    value += strspn(value, ": \"");
    size_t digits = strspn(value, "0123456789");
    if (digits > 0 && digits < 8 && (value[digits] == '\0' || strchr(",\"}", value[digits]) != NULL)) return atoi(value);
  }
  return -1;
}

struct plan read_plan(const char *own, int argc, char **argv) {
  struct plan plan = {.background = false, .confined = false, .of_guest = false, .keep_fd = -1};
  static struct table table;
  if (!read_table(own, &table)) return plan;
  /* getopt_long() sorts it. */
  char **words = calloc((size_t)argc + 1, sizeof *words);
  if (words == NULL) return plan;
  memcpy(words, argv, (size_t)argc * sizeof *words);
  bool stays = false;
  bool joins = false;
  plan.confined = true;
  plan.of_guest = !table.of_namespaces;
  opterr = 0;
  for (int found = 0; (found = getopt_long(argc, words, table.shorts, table.longs, NULL)) != -1;) {
    if (found == '?') continue;
    switch (table.role_of[found < FIRST_VALUE ? table.number_of_short[found] : found - FIRST_VALUE]) {
      case ROLE_STAY: stays = true; break;
      case ROLE_KEEP_FD: plan.keep_fd = is_number(optarg) ? atoi(optarg) : -1; break;
      case ROLE_LINK: plan.keep_fd = link_descriptor(optarg); break;
      case ROLE_OPEN: plan.confined = false; break;
      case ROLE_JOIN: joins = true; break;
      default: break;
    }
  }
  if (table.of_namespaces && !joins) {
    const char *operand = words[optind];
    /* Operands that are not one number are a command, and none stands for a shell. */
    if (operand == NULL || !is_number(operand) || words[optind + 1] != NULL) stays = true;
    /* A command may want to gain privileges, which is over with what confines Node. */
    if (stays) plan.confined = false;
  }
  plan.background = !stays;
  free(words);
  return plan;
}
