package io.qnbd.image.codec;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.ByteBuffer;
import java.util.NoSuchElementException;
import org.jspecify.annotations.Nullable;

/**
 * The system's libdeflate, which inflates about twice as fast as the JDK's zlib. Not everywhere:
 * {@link #LOADED} is null where it is missing, and where {@code -Dqnbd.libdeflate=off} says so.
 *
 * <p>Memory that it gives, a decompressor or a compressor, is for one call at a time. Thread-safe.
 */
@SuppressWarnings("restricted") // native calls are the purpose of this class
final class Libdeflate {
  private static final String LIBRARY = "libdeflate.so.0";

  /** As much as zlib's default compresses, in a third of its time. */
  private static final int LEVEL = 6;

  private static final int SUCCESS = 0;

  static final @Nullable Libdeflate LOADED = load();

  private final MethodHandle newDecompressor;
  private final MethodHandle decompress;
  private final MethodHandle freeDecompressor;
  private final MethodHandle newCompressor;
  private final MethodHandle compress;
  private final MethodHandle freeCompressor;

  private Libdeflate(SymbolLookup library) {
    newDecompressor =
        handle(library, "libdeflate_alloc_decompressor", FunctionDescriptor.of(ADDRESS));
    decompress =
        handle(
            library,
            "libdeflate_deflate_decompress",
            FunctionDescriptor.of(
                JAVA_INT, ADDRESS, ADDRESS, JAVA_LONG, ADDRESS, JAVA_LONG, ADDRESS));
    freeDecompressor =
        handle(library, "libdeflate_free_decompressor", FunctionDescriptor.ofVoid(ADDRESS));
    newCompressor =
        handle(library, "libdeflate_alloc_compressor", FunctionDescriptor.of(ADDRESS, JAVA_INT));
    compress =
        handle(
            library,
            "libdeflate_deflate_compress",
            FunctionDescriptor.of(JAVA_LONG, ADDRESS, ADDRESS, JAVA_LONG, ADDRESS, JAVA_LONG));
    freeCompressor =
        handle(library, "libdeflate_free_compressor", FunctionDescriptor.ofVoid(ADDRESS));
  }

  private static MethodHandle handle(SymbolLookup library, String name, FunctionDescriptor type) {
    return Linker.nativeLinker().downcallHandle(library.findOrThrow(name), type);
  }

  private static @Nullable Libdeflate load() {
    if ("off".equals(System.getProperty("qnbd.libdeflate"))) {
      return null;
    }
    try {
      return new Libdeflate(SymbolLookup.libraryLookup(LIBRARY, Arena.global()));
    } catch (IllegalArgumentException | NoSuchElementException | IllegalCallerException _) {
      return null; // it is not here, lacks something, or native calls are not allowed
    }
  }

  /** A call into the library throws nothing; what comes out of it all the same is our bug. */
  private static Error bug(Throwable e) {
    return e instanceof Error error ? error : new AssertionError(e);
  }

  MemorySegment newDecompressor() {
    try {
      return given((MemorySegment) newDecompressor.invokeExact());
    } catch (Throwable e) {
      throw bug(e);
    }
  }

  MemorySegment newCompressor() {
    try {
      return given((MemorySegment) newCompressor.invokeExact(LEVEL));
    } catch (Throwable e) {
      throw bug(e);
    }
  }

  private static MemorySegment given(MemorySegment memory) {
    if (memory.address() == 0) {
      throw new OutOfMemoryError("no memory for libdeflate");
    }
    return memory;
  }

  /** Whether a stream at the start of {@code compressed} fills {@code cluster} and ends there. */
  boolean decompress(MemorySegment decompressor, ByteBuffer compressed, ByteBuffer cluster) {
    MemorySegment in = MemorySegment.ofBuffer(compressed);
    MemorySegment out = MemorySegment.ofBuffer(cluster);
    try {
      int result =
          (int)
              decompress.invokeExact(
                  decompressor, in, in.byteSize(), out, out.byteSize(), MemorySegment.NULL);
      return result == SUCCESS;
    } catch (Throwable e) {
      throw bug(e);
    }
  }

  /** The bytes that the stream takes in {@code compressed}; 0 if it does not fit. */
  int compress(MemorySegment compressor, ByteBuffer cluster, ByteBuffer compressed) {
    MemorySegment in = MemorySegment.ofBuffer(cluster);
    MemorySegment out = MemorySegment.ofBuffer(compressed);
    try {
      long bytes = (long) compress.invokeExact(compressor, in, in.byteSize(), out, out.byteSize());
      return (int) bytes;
    } catch (Throwable e) {
      throw bug(e);
    }
  }

  void freeDecompressor(MemorySegment decompressor) {
    free(freeDecompressor, decompressor);
  }

  void freeCompressor(MemorySegment compressor) {
    free(freeCompressor, compressor);
  }

  private static void free(MethodHandle free, MemorySegment memory) {
    try {
      free.invokeExact(memory);
    } catch (Throwable e) {
      throw bug(e);
    }
  }
}
