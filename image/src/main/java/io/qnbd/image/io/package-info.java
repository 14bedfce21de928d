/** A host file as the engine sees it: positional reads and writes, holes, syncs and locks. */
package io.qnbd.image.io;
