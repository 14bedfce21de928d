package io.qnbd.server.tls;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * Which content a file had, as far as that shows without reading it. The change time and the inode
 * catch a file that was replaced by one of the same size and date.
 *
 * @param attributes empty when the file could not be looked at
 */
record FileStamp(Path file, Map<String, Object> attributes) {
  static List<FileStamp> of(List<Path> files) {
    return files.stream().map(FileStamp::of).toList();
  }

  private static FileStamp of(Path file) {
    try {
      return new FileStamp(
          file, Map.copyOf(Files.readAttributes(file, "unix:ino,size,lastModifiedTime,ctime")));
    } catch (IOException _) {
      return new FileStamp(file, Map.of()); // whoever reads it next says why
    }
  }
}
