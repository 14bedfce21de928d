package io.qnbd.server;

import io.qnbd.server.config.Choice;
import picocli.CommandLine.ITypeConverter;

/** An option's value that is {@code on} or {@code off}. */
final class OnOff implements ITypeConverter<Boolean> {
  @Override
  public Boolean convert(String value) {
    return Choice.onOff(value);
  }
}
