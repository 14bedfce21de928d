package io.qnbd.server.picture;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.ClusterKind;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

/** The picture's geometry, at the sizes where it could go wrong. */
final class ClusterPictureTest {

  @Test
  void oneClusterIsOneCell() {
    Cells cells = new Cells();
    cells.begin(1, 65536);
    cells.clusters(1, ClusterKind.HEADER);
    String svg = ClusterPicture.svg("a & <b>", "c", cells);
    assertEquals(1, cells.count());
    assertTrue(svg.contains("a &amp; &lt;b&gt;"), svg);
    assertTrue(svg.contains("Each cell is one cluster of 64 KiB"), svg);
    assertTrue(svg.contains("100 %"), svg);
  }

  @Test
  void emptyFileIsAnEmptyPicture() {
    Cells cells = new Cells();
    cells.begin(0, 65536);
    assertTrue(ClusterPicture.svg("empty", "", cells).endsWith("</svg>\n"));
  }

  @Test
  void tenTebibytesStaySmallAndEveryLeakIsSeen() {
    long clusters = (10L << 40) / 65536;
    Cells cells = new Cells();
    cells.begin(clusters, 65536);
    cells.clusters(clusters / 2, ClusterKind.DATA);
    cells.clusters(1, ClusterKind.LEAKED);
    cells.clusters(clusters - clusters / 2 - 1, ClusterKind.HOLE);
    String svg = ClusterPicture.svg("large.qcow2", "", cells);
    assertTrue(cells.count() <= Cells.CELLS_MAX, "cells: " + cells.count());
    assertEquals(1, cells.total(ClusterKind.LEAKED));
    assertTrue(svg.length() < 500_000, "bytes: " + svg.length());
    assertTrue(svg.contains("<path fill=\"" + KindStyle.LEAKED.fill()), "the leak is not drawn");
    assertFalse(svg.contains("NaN"), svg);
  }

  @Test
  void stripesFillTheirCellAndNoneVanishes() {
    double[] widths = ClusterPicture.widths(new double[] {100_000, 1, 50_000}, 14, 1.6);
    assertEquals(14, Arrays.stream(widths).sum(), 1e-9);
    assertTrue(widths[1] >= 1.6 - 1e-9, Arrays.toString(widths));
    assertTrue(widths[0] > widths[2], Arrays.toString(widths));
    double[] many = ClusterPicture.widths(new double[12], 14, 1.6);
    assertEquals(12, many.length);
  }
}
