/**
 * Virtual disks kept in image files: opening, creating, reading, writing and checking them.
 *
 * <p>{@link DiskImages} opens qcow2 and raw images, whatever QEMU or this library made; {@link
 * DiskImage} is one that is open. In an image of 1 GiB that is made for it, this keeps what a disk
 * held before it is written over:
 *
 * {@snippet :
 * Path path = directory.resolve("disk.qcow2");
 * DiskImages.create(path, CreateOptions.qcow2(1L << 30));
 * try (DiskImage disk = DiskImages.open(path, OpenOptions.DEFAULT)) {
 *   disk.write(4096, ByteBuffer.wrap("old".getBytes(UTF_8)));
 *   disk.snapshots().create("before");
 *   disk.write(4096, ByteBuffer.wrap("new".getBytes(UTF_8)));
 *   disk.flush(); // durable from here on
 *   byte[] bytes = new byte[3];
 *   disk.read(4096, ByteBuffer.wrap(bytes));
 *   print(new String(bytes, UTF_8));
 * }
 * }
 *
 * <p>An open image is safe to use from any number of threads, is locked against other programs with
 * QEMU's own locks, and must be closed: a crash loses nothing that was flushed, but leaves reserved
 * clusters and dirty bitmaps behind. Failures are {@link java.io.IOException}s whose message is a
 * sentence for people. {@code docs/library.md} of the project says more.
 */
package io.qnbd.image;
