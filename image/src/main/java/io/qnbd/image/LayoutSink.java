package io.qnbd.image;

/** Is told what an image file's clusters are used for, in the order of the file. */
public interface LayoutSink {
  /** Comes first: the file has {@code clusters} of {@code clusterBytes}, the last maybe in part. */
  void begin(long clusters, int clusterBytes);

  /** The next {@code count} clusters are of this kind. Two in a row may be of the same kind. */
  void clusters(long count, ClusterKind kind);
}
