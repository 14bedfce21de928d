package io.qnbd.image.disk;

import io.qnbd.image.crypt.SectorCipher;
import io.qnbd.image.io.RangeLock;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.ConcurrentLinkedQueue;

/**
 * A file whose sectors are encrypted, each by its number in the file, so that bytes which move to
 * another cluster are encrypted anew.
 *
 * <p>What reads as zeroes below does not read as zeroes here: holes, fresh clusters and the bytes
 * that make a file longer are nothing that anyone has encrypted. So it knows no holes, and zeroes
 * can only be written.
 *
 * <p>A write that covers a sector in part reads it, changes it and writes it back, with that range
 * to itself; others that change it meanwhile wait. A power cut finds whole sectors, old or new, as
 * without encryption.
 *
 * <p>Thread-safe. Owner: its image; the file below belongs to somebody else.
 */
final class EncryptedStorage implements Storage {
  /** What is read, decrypted and copied at a time: few system calls, and near the processor. */
  private static final int PIECE_BYTES = 256 << 10;

  /** As O_DIRECT likes it. */
  private static final int ALIGNMENT = 4096;

  private static final int SECTOR_BYTES = SectorCipher.SECTOR_BYTES;

  private final Storage file;
  private final SectorCipher.Maker ciphers;
  private final RangeLock sectors = new RangeLock();
  private final ConcurrentLinkedQueue<Worker> idle = new ConcurrentLinkedQueue<>();

  EncryptedStorage(Storage file, SectorCipher.Maker ciphers) {
    this.file = file;
    this.ciphers = ciphers;
  }

  /** What one call needs for itself. */
  private static final class Worker {
    final SectorCipher cipher;
    final byte[] bytes = new byte[PIECE_BYTES];
    final ByteBuffer buffer =
        ByteBuffer.allocateDirect(PIECE_BYTES + ALIGNMENT).alignedSlice(ALIGNMENT);

    Worker(SectorCipher cipher) {
      this.cipher = cipher;
    }
  }

  private Worker take() {
    Worker worker = idle.poll();
    return worker == null ? new Worker(ciphers.make()) : worker;
  }

  @Override
  public String name() {
    return file.name();
  }

  @Override
  public long length() throws IOException {
    return file.length();
  }

  @Override
  public int read(long at, ByteBuffer target) throws IOException {
    return read(at, at / SECTOR_BYTES, target);
  }

  /** The same where a sector has another number than its place in the file says. */
  int read(long at, long sector, ByteBuffer target) throws IOException {
    Worker worker = take();
    int done = 0;
    while (target.hasRemaining()) {
      long here = at + done;
      int skip = (int) (here % SECTOR_BYTES);
      int wanted = Math.min(PIECE_BYTES, roundUp(skip + target.remaining()));
      long first = sector + (here / SECTOR_BYTES - at / SECTOR_BYTES);
      readPlain(worker, here - skip, first, wanted);
      int bytes = Math.min(wanted - skip, target.remaining());
      target.put(worker.bytes, skip, bytes);
      done += bytes;
    }
    idle.offer(worker);
    return done;
  }

  private static int roundUp(int bytes) {
    return Math.ceilDiv(bytes, SECTOR_BYTES) * SECTOR_BYTES;
  }

  /**
   * Decrypts whole sectors into the worker's bytes. What is behind the end of the file is zeroes,
   * encrypted: so it reads the same when the file has grown over it.
   */
  private void readPlain(Worker worker, long at, long firstSector, int bytes) throws IOException {
    ByteBuffer buffer = worker.buffer.clear().limit(bytes);
    file.read(at, buffer);
    Zeroes.fill(buffer, buffer.remaining());
    buffer.flip().get(worker.bytes, 0, bytes);
    worker.cipher.decrypt(firstSector, worker.bytes, bytes / SECTOR_BYTES);
  }

  @Override
  public void write(long at, ByteBuffer source) throws IOException {
    if (!source.hasRemaining()) {
      return;
    }
    long end = at + source.remaining();
    boolean partial = at % SECTOR_BYTES != 0 || end % SECTOR_BYTES != 0;
    RangeLock.Hold hold = sectors.acquire(at / SECTOR_BYTES, (end - 1) / SECTOR_BYTES, partial);
    try {
      Worker worker = take();
      for (long here = at; source.hasRemaining(); ) {
        here += writePiece(worker, here, source);
      }
      idle.offer(worker);
    } finally {
      sectors.release(hold);
    }
  }

  /** Writes as much as goes at once; returns how much that is. */
  private int writePiece(Worker worker, long at, ByteBuffer source) throws IOException {
    int skip = (int) (at % SECTOR_BYTES);
    long start = at - skip;
    int bytes = Math.min(PIECE_BYTES - skip, source.remaining());
    int whole = roundUp(skip + bytes);
    int last = whole - SECTOR_BYTES;
    if (skip > 0) {
      readSector(worker, start, 0);
    }
    if (skip + bytes < whole && (skip == 0 || last > 0)) {
      readSector(worker, start + last, last);
    }
    source.get(worker.bytes, skip, bytes);
    worker.cipher.encrypt(start / SECTOR_BYTES, worker.bytes, whole / SECTOR_BYTES);
    file.write(start, worker.buffer.clear().put(worker.bytes, 0, whole).flip());
    return bytes;
  }

  /** Decrypts one sector to where it belongs in the worker's bytes; zeroes past the file's end. */
  private void readSector(Worker worker, long at, int index) throws IOException {
    byte[] sector = new byte[SECTOR_BYTES];
    ByteBuffer buffer = worker.buffer.clear().limit(SECTOR_BYTES);
    if (file.read(at, buffer) > 0) {
      buffer.flip().get(sector, 0, buffer.limit());
      worker.cipher.decrypt(at / SECTOR_BYTES, sector, 1);
    }
    System.arraycopy(sector, 0, worker.bytes, index, SECTOR_BYTES);
  }

  @Override
  public void sync() throws IOException {
    file.sync();
  }

  @Override
  public void setLength(long bytes) throws IOException {
    file.setLength(bytes);
  }

  @Override
  public void punchHole(long at, long bytes) {
    throw new AssertionError("a hole would not read as zeroes");
  }

  @Override
  public void allocate(long at, long bytes) throws IOException {
    file.allocate(at, bytes);
  }

  @Override
  public void zeroRange(long at, long bytes) {
    throw new AssertionError("what the host zeroes would not read as zeroes");
  }

  @Override
  public void prefetch(long at, long bytes) throws IOException {
    file.prefetch(at, bytes);
  }

  /** Nothing of its own. */
  @Override
  public void close() {}
}
