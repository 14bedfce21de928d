package io.qnbd.image;

import java.io.IOException;
import java.util.List;

/**
 * The internal snapshots of an open image (qcow2 specification, "Snapshots").
 *
 * <p>Thread-safe: one change at a time, the others wait. A snapshot is named by its name or, where
 * no snapshot has that name, by its id. Every change is durable when the call returns; a crash in
 * the middle leaves the image as it was before or as it is after, and at most leaked clusters.
 */
public interface Snapshots {

  /** All snapshots, in the order of the image's table. */
  List<ImageReport.Snapshot> list() throws IOException;

  /**
   * Takes a snapshot of the disk as it is when every request that returned before has been applied.
   * Requests wait meanwhile.
   *
   * @throws IOException when there is a snapshot of that name, or the refcounts of the image are
   *     too narrow for one more reference
   */
  void create(String name) throws IOException;

  /**
   * Removes a snapshot and frees what it alone refers to. Requests go on meanwhile; the call
   * returns when all is freed.
   */
  void delete(String snapshot) throws IOException;

  /** Gives a snapshot another name. */
  void rename(String snapshot, String name) throws IOException;
}
