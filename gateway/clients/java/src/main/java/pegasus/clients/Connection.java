package pegasus.clients;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.thrift.TException;
import org.apache.thrift.protocol.TBinaryProtocol;
import org.apache.thrift.protocol.TField;
import org.apache.thrift.protocol.TMessage;
import org.apache.thrift.protocol.TMessageType;
import org.apache.thrift.protocol.TProtocolException;
import org.apache.thrift.protocol.TStruct;
import org.apache.thrift.protocol.TType;
import org.apache.thrift.transport.TMemoryBuffer;
import org.apache.thrift.transport.TMemoryInputTransport;

/**
 * One connection to a node, with many requests under way. Frames have the header of version 1, as the current Java
 * client sends them: 16 bytes, a structure of routing fields, the message.
 */
final class Connection {
  /** What a request is sent with. */
  record Target(int app, int partition, int timeoutMs, long hash) {}

  /** A request that has no answer of the kind asked for. Its name is that of the protocol, or a local one. */
  static final class Failed extends Exception {
    private static final long serialVersionUID = 1;
    final String name;

    Failed(String name) {
      super(name);
      this.name = name;
    }
  }

  static final String RESET = "ERR_SESSION_RESET";
  static final String TIMEOUT = "ERR_TIMEOUT";
  private static final int CONNECT_MS = 3000;
  /** Servers cut longer names. */
  private static final int NAME_MOST = 47;

  private final Socket socket = new Socket();
  private final DataOutputStream out;
  private final AtomicInteger sequence = new AtomicInteger();
  private final Map<Integer, CompletableFuture<byte[]>> waiting = new ConcurrentHashMap<>();
  private volatile boolean closed;

  Connection(String address) throws IOException {
    int colon = address.lastIndexOf(':');
    socket.setTcpNoDelay(true);
    String host = address.substring(0, colon);
    socket.connect(new InetSocketAddress(host, Integer.parseInt(address.substring(colon + 1))), CONNECT_MS);
    out = new DataOutputStream(socket.getOutputStream());
    Thread reader = new Thread(this::read, "reader of " + address);
    reader.setDaemon(true);
    reader.start();
  }

  boolean isClosed() {
    return closed;
  }

  void close() {
    closed = true;
    try {
      socket.close();
    } catch (IOException ignored) {
      // It is gone either way.
    }
    for (Integer key : waiting.keySet()) {
      CompletableFuture<byte[]> one = waiting.remove(key);
      if (one != null) {
        one.completeExceptionally(new Failed(RESET));
      }
    }
  }

  private void read() {
    try (DataInputStream in = new DataInputStream(socket.getInputStream())) {
      while (true) {
        int length = in.readInt();
        if (length < 4 || length > 64 << 20) {
          throw new IOException("answer of " + length + " bytes");
        }
        byte[] frame = new byte[length - 4];
        in.readFully(frame);
        TBinaryProtocol protocol = new TBinaryProtocol(new TMemoryInputTransport(frame));
        protocol.readString();
        CompletableFuture<byte[]> one = waiting.remove(protocol.readMessageBegin().seqid);
        if (one != null) {
          one.complete(frame);
        }
      }
    } catch (IOException | TException | RuntimeException error) {
      close();
    }
  }

  private static byte[] frame(Target target, String rpc, int sequence, String type, Object request) throws TException {
    TMemoryBuffer buffer = new TMemoryBuffer(256);
    TBinaryProtocol protocol = new TBinaryProtocol(buffer);
    new Struct("meta").with("app_id", target.app).with("partition_index", target.partition)
        .with("client_timeout", target.timeoutMs).with("partition_hash", target.hash)
        .with("is_backup_request", false).write(protocol);
    int meta = buffer.length();
    protocol.writeMessageBegin(new TMessage(rpc, TMessageType.CALL, sequence));
    protocol.writeStructBegin(new TStruct("args"));
    protocol.writeFieldBegin(new TField("request", Schema.wireType(type), (short) 1));
    Struct.writeValue(protocol, type, request);
    protocol.writeFieldEnd();
    protocol.writeFieldStop();
    protocol.writeMessageEnd();
    java.nio.ByteBuffer all = java.nio.ByteBuffer.allocate(16 + buffer.length());
    all.put("THFT".getBytes(StandardCharsets.US_ASCII)).putInt(1).putInt(meta).putInt(buffer.length() - meta);
    all.put(buffer.getArray(), 0, buffer.length());
    return all.array();
  }

  /** Sends a request that has no answer. */
  void send(Target target, String rpc, String type, Object request) throws Failed, TException {
    write(frame(target, rpc, sequence.incrementAndGet(), type, request));
  }

  private void write(byte[] frame) throws Failed {
    synchronized (out) {
      try {
        out.write(frame);
        out.flush();
      } catch (IOException error) {
        close();
        throw new Failed(RESET);
      }
    }
  }

  /** Sends a request and waits for its answer, which must be a structure of a kind. */
  Struct call(Target target, String rpc, String type, Object request, String response) throws Failed, TException {
    int number = sequence.incrementAndGet();
    CompletableFuture<byte[]> answer = new CompletableFuture<>();
    waiting.put(number, answer);
    try {
      write(frame(target, rpc, number, type, request));
      if (closed) {
        throw new Failed(RESET);
      }
      return parse(answer.get(target.timeoutMs, TimeUnit.MILLISECONDS), rpc, response);
    } catch (TimeoutException error) {
      throw new Failed(TIMEOUT);
    } catch (InterruptedException error) {
      throw new IllegalStateException(error);
    } catch (ExecutionException error) {
      throw new Failed(RESET);
    } finally {
      waiting.remove(number);
    }
  }

  /** Reads an answer to its last byte. */
  private static Struct parse(byte[] frame, String rpc, String response) throws Failed, TException {
    TMemoryInputTransport bytes = new TMemoryInputTransport(frame);
    TBinaryProtocol in = new TBinaryProtocol(bytes, true, true);
    String error = in.readString();
    TMessage message = in.readMessageBegin();
    String asked = rpc.substring(0, Math.min(rpc.length(), NAME_MOST));
    if (message.type != TMessageType.REPLY || !message.name.equals(asked + "_ACK")) {
      throw new TProtocolException("answer " + message + " to " + rpc);
    }
    Struct result = null;
    if (error.equals("ERR_OK")) {
      TField field = in.readFieldBegin();
      if (field.id != 0 || field.type != TType.STRUCT) {
        throw new TProtocolException("result of " + rpc + " in field " + field.id + " of type " + field.type);
      }
      result = Struct.read(in, response);
      if (in.readFieldBegin().type != TType.STOP) {
        throw new TProtocolException("two results of " + rpc);
      }
    }
    if (bytes.getBytesRemainingInBuffer() != 0) {
      throw new TProtocolException(bytes.getBytesRemainingInBuffer() + " bytes after the answer to " + rpc);
    }
    if (result == null) {
      throw new Failed(error);
    }
    return result;
  }
}
