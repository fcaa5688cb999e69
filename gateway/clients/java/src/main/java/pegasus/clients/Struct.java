package pegasus.clients;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.thrift.TException;
import org.apache.thrift.protocol.TField;
import org.apache.thrift.protocol.TList;
import org.apache.thrift.protocol.TMap;
import org.apache.thrift.protocol.TProtocol;
import org.apache.thrift.protocol.TProtocolException;
import org.apache.thrift.protocol.TStruct;
import org.apache.thrift.protocol.TType;

/**
 * One structure with its values. Byte strings are byte[], lists are List, an address is "ip:port" or "" for none, and
 * a partition is "app.index".
 */
final class Struct {
  final Schema schema;
  private final Map<String, Object> values = new LinkedHashMap<>();

  Struct(String name) {
    schema = Schema.of(name);
  }

  Struct with(String field, Object value) {
    schema.field(field);
    values.put(field, value);
    return this;
  }

  boolean has(String field) {
    return values.containsKey(field);
  }

  Object get(String field) {
    return values.get(schema.field(field).name());
  }

  int i32(String field) {
    return (Integer) get(field);
  }

  long i64(String field) {
    return (Long) get(field);
  }

  boolean bool(String field) {
    return (Boolean) get(field);
  }

  String string(String field) {
    return (String) get(field);
  }

  byte[] blob(String field) {
    return (byte[]) get(field);
  }

  @SuppressWarnings("unchecked")
  List<Struct> list(String field) {
    return (List<Struct>) get(field);
  }

  void write(TProtocol out) throws TException {
    out.writeStructBegin(new TStruct(schema.name));
    for (Schema.Field field : schema.fields) {
      if (values.containsKey(field.name())) {
        out.writeFieldBegin(new TField(field.name(), Schema.wireType(field.type()), field.id()));
        writeValue(out, field.type(), values.get(field.name()));
        out.writeFieldEnd();
      }
    }
    out.writeFieldStop();
    out.writeStructEnd();
  }

  static void writeValue(TProtocol out, String type, Object value) throws TException {
    switch (type) {
      case "bool" -> out.writeBool((Boolean) value);
      case "byte" -> out.writeByte((Byte) value);
      case "i32" -> out.writeI32((Integer) value);
      case "i64" -> out.writeI64((Long) value);
      case "string", "error_code" -> out.writeString((String) value);
      case "blob" -> out.writeBinary(ByteBuffer.wrap((byte[]) value));
      case "map" -> {
        Map<?, ?> map = (Map<?, ?>) value;
        out.writeMapBegin(new TMap(TType.STRING, TType.STRING, map.size()));
        for (Map.Entry<?, ?> entry : map.entrySet()) {
          out.writeString((String) entry.getKey());
          out.writeString((String) entry.getValue());
        }
        out.writeMapEnd();
      }
      default -> {
        if (type.startsWith("list:")) {
          String element = type.substring(5);
          List<?> list = (List<?>) value;
          out.writeListBegin(new TList(Schema.wireType(element), list.size()));
          for (Object one : list) {
            writeValue(out, element, one);
          }
          out.writeListEnd();
        } else {
          ((Struct) value).write(out);
        }
      }
    }
  }

  /** Reads strictly: a field that the structure does not have, has with another type, or must have, is an error. */
  static Struct read(TProtocol in, String name) throws TException {
    Struct struct = new Struct(name);
    in.readStructBegin();
    for (TField header = in.readFieldBegin(); header.type != TType.STOP; header = in.readFieldBegin()) {
      Schema.Field field = struct.schema.field(header.id);
      if (field == null || Schema.wireType(field.type()) != header.type || struct.has(field.name())) {
        throw new TProtocolException("field " + header.id + " of type " + header.type + " in " + name);
      }
      struct.values.put(field.name(), readValue(in, field.type()));
      in.readFieldEnd();
    }
    in.readStructEnd();
    for (Schema.Field field : struct.schema.fields) {
      if (!field.optional() && !struct.has(field.name())) {
        throw new TProtocolException("field " + field.id() + " (" + field.name() + ") is missing in " + name);
      }
    }
    return struct;
  }

  private static Object readValue(TProtocol in, String type) throws TException {
    switch (type) {
      case "bool":
        return in.readBool();
      case "byte":
        return in.readByte();
      case "i32":
        return in.readI32();
      case "i64":
        return in.readI64();
      case "string", "error_code":
        return in.readString();
      case "blob":
        ByteBuffer buffer = in.readBinary();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
      case "gpid":
        long gpid = in.readI64();
        return (int) gpid + "." + (int) (gpid >> 32);
      case "address":
        return address(in.readI64());
      case "map":
        return readMap(in);
      default:
        return type.startsWith("list:") ? readList(in, type.substring(5)) : read(in, type);
    }
  }

  private static String address(long value) throws TException {
    if (value == 0) {
      return "";
    }
    if ((value & 0xffff) != 1) {
      throw new TProtocolException("address " + Long.toHexString(value) + " is not of IPv4");
    }
    return (value >> 56 & 255) + "." + (value >> 48 & 255) + "." + (value >> 40 & 255) + "." + (value >> 32 & 255)
        + ":" + (value >> 16 & 0xffff);
  }

  private static Map<String, String> readMap(TProtocol in) throws TException {
    TMap header = in.readMapBegin();
    Map<String, String> map = new LinkedHashMap<>();
    for (int i = 0; i < header.size; i++) {
      map.put(in.readString(), in.readString());
    }
    in.readMapEnd();
    return map;
  }

  private static List<Object> readList(TProtocol in, String element) throws TException {
    TList header = in.readListBegin();
    if (header.elemType != Schema.wireType(element)) {
      throw new TProtocolException("list of type " + header.elemType + ", want " + element);
    }
    List<Object> list = new ArrayList<>();
    for (int i = 0; i < header.size; i++) {
      list.add(readValue(in, element));
    }
    in.readListEnd();
    return list;
  }
}
