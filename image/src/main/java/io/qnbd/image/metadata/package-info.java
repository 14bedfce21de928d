/** Metadata on its way between memory and the file: reading whole tables, and who wants a sync. */
package io.qnbd.image.metadata;
