/** Internal snapshots: their directory, and taking, removing and reverting to one. */
package io.qnbd.image.snapshot;
