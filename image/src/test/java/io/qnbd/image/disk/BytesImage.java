package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentSink;
import io.qnbd.image.ExtentState;
import io.qnbd.image.ImageStats;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.Snapshots;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.ZeroRangeSink;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.jspecify.annotations.Nullable;

/** A read-only disk that is an array: what a raw backing file looks like to the engine. */
final class BytesImage implements DiskImage {
  private final byte[] bytes;

  /** The array belongs to the disk from now on. */
  BytesImage(byte[] bytes) {
    this.bytes = bytes;
  }

  @Override
  public long virtualBytes() {
    return bytes.length;
  }

  @Override
  public boolean readOnly() {
    return true;
  }

  @Override
  public int preferredBytes() {
    return 512;
  }

  @Override
  public void read(long offset, ByteBuffer target) {
    Objects.checkFromIndexSize(offset, target.remaining(), (long) bytes.length);
    target.put(bytes, (int) offset, target.remaining());
  }

  @Override
  public void read(long offset, ByteBuffer target, ZeroRangeSink zeroes) {
    read(offset, target);
  }

  @Override
  public void extents(long offset, long count, ExtentSink sink) {
    Objects.checkFromIndexSize(offset, count, (long) bytes.length);
    if (count != 0) {
      sink.extent(count, new ExtentState(false, false, 1));
    }
  }

  @Override
  public void write(long offset, ByteBuffer source) throws IOException {
    throw refusal();
  }

  @Override
  public void writeZeroes(long offset, long count, ZeroMode mode) throws IOException {
    throw refusal();
  }

  @Override
  public boolean tryFastZeroes(long offset, long count, ZeroMode mode) throws IOException {
    throw refusal();
  }

  @Override
  public void trim(long offset, long count) throws IOException {
    throw refusal();
  }

  @Override
  public void prefetch(long offset, long count) {
    Objects.checkFromIndexSize(offset, count, (long) bytes.length);
  }

  @Override
  public CompletionStage<@Nullable Void> commit() {
    return CompletableFuture.completedFuture(null);
  }

  @Override
  public void flush() {}

  @Override
  public ImageStats stats() {
    return new ImageStats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  }

  @Override
  public Snapshots snapshots() throws UnsupportedImageException {
    throw new UnsupportedImageException("memory has no snapshots");
  }

  @Override
  public void resize(long count) throws IOException {
    throw refusal();
  }

  @Override
  public void close() {}

  private static IOException refusal() {
    return new ReadOnlyImageException("a backing file was written to");
  }
}
