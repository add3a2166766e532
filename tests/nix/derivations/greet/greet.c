#include <cap-ng.h>
#include <stdio.h>

int main(void) {
	printf("hello, %s\n", capng_capability_to_name(0));
	return 0;
}
