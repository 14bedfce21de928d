package io.qnbd.server.picture;

import io.qnbd.server.config.Sizes;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * The picture: a title, the whole file as one bar, a legend with figures, and the file as a grid of
 * cells, from left to right and from top to bottom. One self-contained file without scripts, fonts
 * or links.
 *
 * <p>All cells of one kind are one path, so that the largest picture takes some 300 kB.
 */
public final class ClusterPicture {
  private static final int WIDTH = 1120;
  private static final int MARGIN = 40;
  private static final int INNER = WIDTH - 2 * MARGIN;
  private static final int LABEL_WIDTH = 80;
  private static final int GRID_WIDTH = INNER - LABEL_WIDTH;
  private static final int CELL_MAX = 40;
  private static final int LEGEND_ROW = 24;
  private static final int BAR_TOP = 104;
  private static final int BAR_HEIGHT = 26;

  /** What is rare, like a leak, is still seen: so wide at least is its stripe. */
  private static final double STRIPE_MIN = 1.6;

  private final Cells cells;
  private final Map<KindStyle, StringBuilder> paths = new EnumMap<>(KindStyle.class);
  private final StringBuilder svg = new StringBuilder();

  private ClusterPicture(Cells cells) {
    this.cells = cells;
  }

  /**
   * Draws.
   *
   * @param subtitle a line of facts below the title
   */
  public static String svg(String title, String subtitle, Cells cells) {
    return new ClusterPicture(cells).draw(title, subtitle);
  }

  private String draw(String title, String subtitle) {
    List<KindStyle> present = present();
    int legendRows = (present.size() + 1) / 2;
    int legendTop = BAR_TOP + BAR_HEIGHT + 38;
    int gridTop = legendTop + legendRows * LEGEND_ROW + 44;
    int columns = columns();
    int cell = Math.min(CELL_MAX, GRID_WIDTH / columns);
    int rows = (cells.count() + columns - 1) / columns;
    int height = gridTop + rows * cell + 56;

    begin(height, title, subtitle);
    drawBar(present);
    drawLegend(present, legendTop);
    drawGrid(gridTop, columns, cell, rows);
    text(MARGIN, height - 22, "note", scale());
    svg.append("</svg>\n");
    return svg.toString();
  }

  private List<KindStyle> present() {
    return Arrays.stream(KindStyle.values()).filter(style -> total(style) > 0).toList();
  }

  /** About square, so that small files have large cells; a power of two, so that rows are round. */
  private int columns() {
    int columns = 8;
    while (columns < 64 && columns * columns < cells.count()) {
      columns *= 2;
    }
    return columns;
  }

  private void begin(int height, String title, String subtitle) {
    svg.append(
        """
        <svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %1$d %2$d" \
        role="img" font-family="system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif">
        <title>%s</title>
        <style>
        .title{font-size:24px;font-weight:600;fill:#1c2430}
        .sub{font-size:14px;fill:#5a6675}
        .name{font-size:14px;fill:#1c2430}
        .figure{font-size:13px;fill:#5a6675;text-anchor:end}
        .row{font-size:11px;fill:#7b8794;text-anchor:end}
        .note{font-size:12px;fill:#7b8794}
        </style>
        <rect width="%1$d" height="%2$d" fill="#ffffff"/>
        """
            .formatted(WIDTH, height, escaped(title)));
    text(MARGIN, 54, "title", title);
    text(MARGIN, 80, "sub", subtitle);
  }

  private void drawBar(List<KindStyle> present) {
    double[] shares = present.stream().mapToDouble(style -> (double) total(style)).toArray();
    double[] widths = widths(shares, INNER, 2);
    double x = MARGIN;
    for (int i = 0; i < widths.length; i++) {
      rectangle(x, BAR_TOP, widths[i], BAR_HEIGHT, present.get(i));
      x += widths[i];
    }
    svg.append(
        "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#c3cad3\"/>\n"
            .formatted(MARGIN, BAR_TOP, INNER, BAR_HEIGHT));
  }

  private void drawLegend(List<KindStyle> present, int top) {
    int rows = (present.size() + 1) / 2;
    int columnWidth = INNER / 2;
    for (int i = 0; i < present.size(); i++) {
      KindStyle style = present.get(i);
      int x = MARGIN + i / rows * columnWidth;
      int y = top + i % rows * LEGEND_ROW;
      rectangle(x, y - 12, 14, 14, style);
      text(x + 24, y, "name", style.label());
      int right = x + columnWidth - 40;
      text(right - 170, y, "figure", String.format(Locale.ROOT, "%,d", total(style)));
      text(right - 70, y, "figure", Sizes.text(total(style) * cells.clusterBytes()));
      text(right, y, "figure", percent(style));
    }
  }

  private String percent(KindStyle style) {
    double percent = 100.0 * total(style) / cells.clusters();
    return percent < 0.1
        ? "< 0.1 %"
        : String.format(Locale.ROOT, percent >= 99.95 ? "%.0f %%" : "%.1f %%", percent);
  }

  private void drawGrid(int top, int columns, int cell, int rows) {
    for (int i = 0; i < cells.count(); i++) {
      int x = MARGIN + LABEL_WIDTH + i % columns * cell;
      int y = top + i / columns * cell;
      addCell(i, x, y, cell - Math.max(1, cell / 12));
    }
    paths.forEach((style, path) ->
        svg.append(
            "<path fill=\"%s\"%s d=\"%s\"/>\n".formatted(style.fill(), outline(style), path)));
    long rowBytes = columns * cells.clustersPerCell() * cells.clusterBytes();
    int labelEvery = cell >= 24 ? 1 : 4;
    for (int row = 0; row < rows; row += labelEvery) {
      int y = top + row * cell + Math.min(cell, 22) / 2 + 4;
      text(MARGIN + LABEL_WIDTH - 12, y, "row", row == 0 ? "0" : Sizes.text(row * rowBytes));
    }
  }

  /** A cell of one kind is a square, one of several a row of stripes as wide as their shares. */
  private void addCell(int index, int left, int top, int side) {
    List<KindStyle> present =
        Arrays.stream(KindStyle.values())
            .filter(style -> cells.of(index, style.kind()) > 0)
            .toList();
    double[] shares =
        present.stream().mapToDouble(style -> (double) cells.of(index, style.kind())).toArray();
    double[] widths = widths(shares, side, STRIPE_MIN);
    double x = left;
    for (int i = 0; i < widths.length; i++) {
      paths
          .computeIfAbsent(present.get(i), _ -> new StringBuilder())
          .append(
              "M%s %dh%sv%dh-%sz"
                  .formatted(number(x), top, number(widths[i]), side, number(widths[i])));
      x += widths[i];
    }
  }

  /** Shares of {@code whole}, none below {@code least}: the largest gives what the others need. */
  static double[] widths(double[] shares, double whole, double least) {
    double sum = Arrays.stream(shares).sum();
    double floor = Math.min(least, whole / Math.max(1, shares.length));
    double[] widths = new double[shares.length];
    double over = 0; // of what is wider than the floor
    double under = 0;
    for (int i = 0; i < shares.length; i++) {
      widths[i] = Math.max(floor, whole * shares[i] / sum);
      under += widths[i];
      over += widths[i] - floor;
    }
    double excess = under - whole;
    for (int i = 0; i < widths.length && over > 0; i++) {
      widths[i] -= excess * (widths[i] - floor) / over;
    }
    return widths;
  }

  private long total(KindStyle style) {
    return cells.total(style.kind());
  }

  private String scale() {
    long each = cells.clustersPerCell();
    if (each == 1) {
      return "Each cell is one cluster of %s; the figures at the left are offsets in the file."
          .formatted(Sizes.text(cells.clusterBytes()));
    }
    return String.format(
        Locale.ROOT,
        "Each cell is %,d clusters (%s), in stripes of what they are; thin stripes are widened to "
            + "be seen. At the left: offsets in the file.",
        each,
        Sizes.text(each * cells.clusterBytes()));
  }

  private void rectangle(double x, int y, double width, int height, KindStyle style) {
    svg.append(
        "<rect x=\"%s\" y=\"%d\" width=\"%s\" height=\"%d\" fill=\"%s\"%s/>\n"
            .formatted(number(x), y, number(width), height, style.fill(), outline(style)));
  }

  /** White alone would not be seen as anything. */
  private static String outline(KindStyle style) {
    return style == KindStyle.HOLE ? " stroke=\"#dde2e8\" stroke-width=\"0.6\"" : "";
  }

  private void text(int x, int y, String style, String text) {
    svg.append(
        "<text x=\"%d\" y=\"%d\" class=\"%s\">%s</text>\n".formatted(x, y, style, escaped(text)));
  }

  private static String number(double value) {
    long hundredths = Math.round(value * 100);
    return hundredths % 100 == 0
        ? Long.toString(hundredths / 100)
        : String.format(Locale.ROOT, "%.2f", value);
  }

  /** Also what XML has no way to write. */
  private static String escaped(String text) {
    StringBuilder escaped = new StringBuilder();
    text.codePoints()
        .forEach(c -> {
          switch (c) {
            case '&' -> escaped.append("&amp;");
            case '<' -> escaped.append("&lt;");
            case '>' -> escaped.append("&gt;");
            case '"' -> escaped.append("&quot;");
            default ->
                escaped.appendCodePoint(
                    Character.isISOControl(c) || c >= 0xfffe || (c >= 0xd800 && c < 0xe000)
                        ? 0xfffd
                        : c);
          }
        });
    return escaped.toString();
  }
}
