package io.qnbd.image;

import java.io.IOException;
import java.util.List;

/**
 * The persistent dirty bitmaps of an open image (qcow2 specification, "Bitmaps").
 *
 * <p>A bitmap that is enabled records which parts of the disk are changed, from its first moment to
 * the one at which it is disabled; then it is kept as it is. It is written to the image when it is
 * disabled and when the image is closed. An image that was not closed, because of a crash, has its
 * enabled bitmaps marked as ones that can't be believed, and so does an image whose disk was
 * changed by software that knows no bitmaps.
 *
 * <p>Thread-safe: one change at a time, the others wait. Each is durable when the call returns.
 * Failures are an {@link IOException} whose message is a sentence; then nothing was changed, or the
 * bitmap can't be believed after a crash.
 */
public interface Bitmaps {

  /** All bitmaps, in the order of the image, also those that can't be believed. */
  List<BitmapInfo> list();

  /**
   * For who must not miss one: throws, with the reason, where the image's file has bitmaps that
   * {@link #list} leaves out.
   */
  void requireAllListed() throws CorruptImageException;

  /**
   * Adds a bitmap in which nothing is dirty.
   *
   * @param granularityBytes what one bit stands for: a power of two from 512 to 2 GiB; 0 for the
   *     cluster size, but from 4 to 64 KiB
   * @param enabled whether it records from now on
   */
  void add(String name, long granularityBytes, boolean enabled) throws IOException;

  /**
   * Adds an enabled bitmap and disables another one, at one moment: each change of the disk is in
   * the old bitmap and on the disk when this returns, or in the new bitmap. Requests wait for that
   * moment and no longer.
   *
   * @param old one that is enabled
   */
  void replace(String old, String name, long granularityBytes) throws IOException;

  /** Removes a bitmap, also one that can't be believed. */
  void remove(String name) throws IOException;

  /** Goes on recording. */
  void enable(String name) throws IOException;

  /** Stops recording. */
  void disable(String name) throws IOException;

  /** Says of nothing that it is dirty. */
  void clear(String name) throws IOException;

  /** Says of all that is dirty in {@code source} that it is dirty in {@code target} too. */
  void merge(String target, String source) throws IOException;

  /**
   * The same with a bitmap of another image.
   *
   * @param image a disk of the same size
   */
  void merge(String target, DiskImage image, String source) throws IOException;
}
