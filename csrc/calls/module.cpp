// stonefx._calls: what happens at every call from Python, made cheap. Against torch's own headers, so for the release of
// torch that it was built with alone; whoever has another takes the general way.
#include <Python.h>
#include <structmember.h>

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "call.h"
#include "unchanged.h"

namespace py = pybind11;

namespace {

using stone::calls::Call;
using stone::calls::Number;
using stone::calls::Unchanged;

struct CallObject {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  Call* call;
};

PyObject* vectorcall(PyObject* self, PyObject* const* arguments, size_t flagged_count, PyObject* keywords) {
  HANDLE_TH_ERRORS
  return (*reinterpret_cast<CallObject*>(self)->call)(arguments, PyVectorcall_NARGS(flagged_count), keywords);
  END_HANDLE_TH_ERRORS
}

void deallocate(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete reinterpret_cast<CallObject*>(self)->call;
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* call_type() {
  static PyMemberDef members[] = {
      {"__vectorcalloffset__", T_PYSSIZET, offsetof(CallObject, vectorcall), READONLY, nullptr},
      {nullptr, 0, 0, 0, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(&deallocate)},
                                {Py_tp_call, reinterpret_cast<void*>(&PyVectorcall_Call)},
                                {Py_tp_members, members},
                                {0, nullptr}};
  static PyType_Spec spec{"stonefx._calls.Call", sizeof(CallObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  static PyObject* type = PyType_FromSpec(&spec);
  return type;
}

py::object make(const std::string& name, const std::vector<bool>& positive,
                const std::vector<std::pair<at::ScalarType, std::vector<std::pair<std::string, double>>>>& bounds) {
  std::vector<Number> numbers;
  for (const bool must : positive) {
    numbers.push_back(must ? Number::kPositive : Number::kAny);
  }
  auto call = std::make_unique<Call>(name, std::move(numbers), bounds);
  auto* type = reinterpret_cast<PyTypeObject*>(call_type());
  PyObject* object = type == nullptr ? nullptr : type->tp_alloc(type, 0);
  if (object == nullptr) {
    throw py::error_already_set();
  }
  reinterpret_cast<CallObject*>(object)->vectorcall = &vectorcall;
  reinterpret_cast<CallObject*>(object)->call = call.release();
  return py::reinterpret_steal<py::object>(object);
}

}  // namespace

PYBIND11_MODULE(_calls, m) {
  m.doc() = "Calls of operators without the cost of the general way, for the release of torch it was built with.";
  m.def("make", &make, py::arg("name"), py::arg("positive"), py::arg("bounds"),
        "A callable `(*operands, **options)` for `stone::name`, which gives NotImplemented where a call is not plain.\n\n"
        "`positive`: for each of the last operands, which may be Python numbers, whether it must be positive;\n"
        "`bounds`: a list of dtypes, each with the options of that dtype that are not at their defaults.");
  py::class_<Unchanged>(m, "Unchanged", "What weights looked like once, and whether they look so still.")
      .def(py::init<const py::list&, const std::vector<std::array<py::object, 3>>&>(), py::arg("weights"),
           py::arg("references"),
           "`references`: for each weight its attributes or None, a weak reference to it or None, and one to its storage.")
      .def("__call__", &Unchanged::operator(), py::arg("weights"), "Whether these are those weights, as they were.");
}
