/* The same program with SQLite's own VFS. */
int litefleet_suite_init(const char *unused);
int litefleet_suite_init(const char *unused) {
  (void)unused;
  return 0;
}
