/* Two libraries: one that the other needs and, lying in another directory, does not find. */
#ifdef FAKE_NEEDS
extern int fake_absent_value;
int *fake_absent_use(void);
int *fake_absent_use(void) { return &fake_absent_value; }
#else
int fake_absent_value = 1;
#endif
