package io.qnbd.image.bitmap;

import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Iterator;
import java.util.LinkedHashMap;

/**
 * The last pages of a bitmap's table and data that were read. They do not change meanwhile, or only
 * to what the reader adds to them anyway: see {@link StoredBits}.
 *
 * <p>Thread-safe: the map by its monitor, under which nothing is read; a page is never changed.
 */
final class PageCache {
  static final int PAGE_BYTES = 4096;

  /** 256 KiB: one page of data says something about 2 GiB of disk at 64 KiB a bit. */
  private static final int PAGES_MAX = 64;

  private final ImageFile file;
  private final int pageBytes;
  private final LinkedHashMap<Long, ByteBuffer> pages = new LinkedHashMap<>(16, 0.75f, true);

  /** Pages are not larger than clusters, so that each lies in one. */
  PageCache(ImageFile file, int clusterBytes) {
    this.file = file;
    this.pageBytes = pageBytes(clusterBytes);
  }

  static int pageBytes(int clusterBytes) {
    return Math.min(PAGE_BYTES, clusterBytes);
  }

  int pageBytes() {
    return pageBytes;
  }

  /** The page at {@code hostOffset}, one of its multiples; zeroes where the file has ended. */
  ByteBuffer page(long hostOffset) throws IOException {
    synchronized (pages) {
      ByteBuffer cached = pages.get(hostOffset);
      if (cached != null) {
        return cached.duplicate();
      }
    }
    ByteBuffer page = ByteBuffer.allocate(pageBytes);
    file.read(hostOffset, page);
    synchronized (pages) {
      pages.put(hostOffset, page.asReadOnlyBuffer());
      Iterator<Long> eldest = pages.keySet().iterator();
      while (pages.size() > PAGES_MAX) {
        eldest.next();
        eldest.remove();
      }
    }
    return page;
  }
}
