/** Group commit: many callers who wait for durability share one run of the work that gives it. */
package io.qnbd.image.commit;
