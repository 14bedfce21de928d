/** Disk images: the qcow2 engine and the raw format. Knows no NBD and no network. */
@org.jspecify.annotations.NullMarked
module io.qnbd.image {
  requires static transitive org.jspecify;
  requires com.github.luben.zstd_jni;
  requires org.slf4j;

  exports io.qnbd.image;
}
